"""caption: a folder of pictures → data/captions/<style>.jsonl, each picture's caption with the trigger."""

from aclora.core.stage import run

import functools
from pathlib import Path

from aclora.core import params
from aclora.core.files import require_writable, writing
from aclora.core.hub import trained_on
from aclora.data.captions import look_at_folder, write_captions
from aclora.models.captioner import CaptionsConfig, blip
from aclora.project.home import home

PICTURES = Path(".cache/pictures")


def main(name: str) -> None:
    style = params.load(f"styles.{name}", params.StyleConfig)
    config = params.load("captions", CaptionsConfig)
    require_writable(f"data/captions/{name}.jsonl")
    captioner = functools.cache(lambda: blip(config))  # loaded when the first caption is found missing
    write = (lambda picture: captioner()(picture)) if config.model else None
    found = look_at_folder(Path(style.pictures), style.trigger, write, config.model or "", home() / PICTURES)
    captions = found.captions
    with writing(f"data/captions/{name}.jsonl") as (out,):
        write_captions(out, captions)
    print(f"{len(captions)} captions; the first: {captions[0].text}")
    written = [caption for caption in captions if caption.source == config.model]
    for caption in written:
        print(f"written by {config.model} for {caption.file}: {caption.text}")
    if written and config.model and (known := trained_on(config.model)):
        print(
            f"note: captions of {len(written)} pictures are by {config.model}, which was trained on {known}: of other "
            f"pictures it may say what they do not show; read them before you train"
        )


if __name__ == "__main__":
    run(main, __doc__)
