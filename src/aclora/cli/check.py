"""What `aclora check` reads and prints."""

from pathlib import Path


def check() -> None:
    """Read all that a run would read of the user's, and print what each style would train on."""
    from aclora.audit.signatures import AuditConfig
    from aclora.core import params
    from aclora.core.method import method_named
    from aclora.core.model import ModelConfig
    from aclora.data.captions import CaptionsConfig, caption_folder
    from aclora.models.sampling import GenerateConfig, read_prompts
    from aclora.training.loop import TrainConfig

    method = params.method()
    module = method_named(method)
    params.load(method, module.config_type)
    train = params.load("train", TrainConfig)
    params.load("model", ModelConfig)
    params.load("audit", AuditConfig)
    captions = params.load("captions", CaptionsConfig)
    prompts = read_prompts(Path(params.load("generate", GenerateConfig).prompts))
    write = (lambda picture: "to be written") if captions.model else None
    by = f" by {captions.model}"
    for name in params.styles():
        style = params.load(f"styles.{name}", params.StyleConfig)
        rows = caption_folder(Path(style.pictures), style.trigger, write, "captioner")
        written = sum(r.source == "captioner" for r in rows)
        print(
            f"{name}: {len(rows)} pictures, {written} captions to be written{by if written else ''}; {method}, "
            f"{train.epochs} epochs; {len(prompts)} prompts"
        )
