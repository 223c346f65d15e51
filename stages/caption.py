"""caption: a folder of pictures → data/captions/<style>.jsonl, each picture's caption with the trigger."""

from pathlib import Path

from aclora import params
from aclora.captioning import Captions, blip, caption_folder
from aclora.dataset import write_captions
from aclora.stage import run, writing


def main(name: str) -> None:
    style = params.load(f"styles.{name}", params.Style)
    config = params.load("captions", Captions)
    writer = blip(config) if config.model else None
    captions = caption_folder(Path(style.pictures), style.trigger, writer, config.model or "")
    with writing(f"data/captions/{name}.jsonl") as (out,):
        write_captions(out, captions)
    print(f"{len(captions)} captions; the first: {captions[0].text}")


if __name__ == "__main__":
    run(main, __doc__)
