"""caption: a folder of pictures → data/captions/<style>.jsonl, each picture's caption with the trigger."""

import functools
from pathlib import Path

from aclora.core import params
from aclora.core.files import writing
from aclora.core.stage import run
from aclora.data.captions import look_at_folder, write_captions
from aclora.models.captioner import CaptionsConfig, blip

PICTURES = Path(".cache/pictures")


def main(name: str) -> None:
    style = params.load(f"styles.{name}", params.StyleConfig)
    config = params.load("captions", CaptionsConfig)
    captioner = functools.cache(lambda: blip(config))  # loaded when the first caption is found missing
    write = (lambda picture: captioner()(picture)) if config.model else None
    found = look_at_folder(Path(style.pictures), style.trigger, write, config.model or "", PICTURES)
    captions = found.captions
    for note in found.notes:
        print(f"note: {note}")
    with writing(f"data/captions/{name}.jsonl") as (out,):
        write_captions(out, captions)
    print(f"{len(captions)} captions; the first: {captions[0].text}")
    for caption in captions:
        if caption.source == config.model:
            print(f"written by {config.model} for {caption.file}: {caption.text}")


if __name__ == "__main__":
    run(main, __doc__)
