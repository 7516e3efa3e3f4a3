"""The folder that a run leaves: model, processor, card, metrics.json, recipe and pictures."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from transformers import PreTrainedModel, ProcessorMixin

from train.arguments import ArgumentsError, PretrainArguments
from train.checkpoint import saved_steps
from train.evaluation import GalleryEmbeddings
from train.finetune_arguments import FinetuneArguments
from train.metrics_file import write_metrics
from train.pictures import save_embedding_map, save_loss_curves, save_similarity_matrix

RECIPE_FILE = "recipe.yaml"
UNFINISHED_RECIPE = f".{RECIPE_FILE}.partial"
METRICS_FILE = "metrics.json"
PICTURES = "pictures"
CHECKPOINTS = "checkpoints"
UNFINISHED = ".unfinished"
START_ANEW = "Choose another output_dir, or pass --overwrite_output_dir true to start anew in it."
# Fields that may differ between two runs into one folder: but for rounding, they change neither the model
# nor its data.
FREE_FIELDS = (
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "dataloader_num_workers",
    "deterministic",
    "report_to",
    "push_to_hub",
    "expected_processes",
    "bad_steps_limit",
    "checkpoints_total_limit",
)


def check_output_dir(arguments: PretrainArguments) -> None:
    """Refuses to write over another run; with `overwrite_output_dir` its checkpoints are removed.

    Raises:
        ArgumentsError: the folder holds another recipe's run, checkpoints that a new start would write over,
            or files that no run wrote.
    """
    if arguments.resume_from_checkpoint is not None:
        return
    refuse_other_run(arguments, "pretraining")
    checkpoints = Path(arguments.output_dir) / CHECKPOINTS
    if arguments.overwrite_output_dir:
        shutil.rmtree(checkpoints, ignore_errors=True)
    steps = saved_steps(checkpoints)
    if steps:
        raise ArgumentsError(
            f"output_dir {arguments.output_dir} holds checkpoints up to step {steps[-1]}. Pass "
            f"--resume_from_checkpoint last to go on from there. {START_ANEW}"
        )


def refuse_other_run(arguments: PretrainArguments | FinetuneArguments, kind: str) -> None:
    """Lets a run into a new or empty folder, or one that the same recipe's run left.

    Args:
        arguments: with `overwrite_output_dir`, any folder will do.
        kind: what the run does, for the text of an error.

    Raises:
        ArgumentsError: the folder is a file, or holds another recipe's run, or files that no run wrote.
    """
    folder = Path(arguments.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ArgumentsError(f"output_dir {folder} is a file: name a folder.")
    if arguments.overwrite_output_dir or not folder.exists():
        return
    recipe = folder / RECIPE_FILE
    if not recipe.is_file() and any(entry.name != UNFINISHED_RECIPE for entry in folder.iterdir()):
        raise ArgumentsError(f"output_dir {folder} holds files that no {kind} wrote. {START_ANEW}")
    if recipe.is_file():
        difference = _first_difference(yaml.safe_load(recipe.read_text(encoding="utf-8")), arguments)
        if difference:
            raise ArgumentsError(
                f"output_dir {folder} holds a run of another recipe: {difference}. {START_ANEW}"
            )


def write_recipe(arguments: PretrainArguments | FinetuneArguments) -> None:
    """Writes the resolved recipe, by which the folder is known as this run's."""
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / UNFINISHED_RECIPE
    aside.write_text(arguments.to_yaml(), encoding="utf-8")
    os.replace(aside, folder / RECIPE_FILE)  # a run that is killed here leaves no half of it


def write_model_folder(
    arguments: PretrainArguments,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    metrics: dict[str, float],
    history: Sequence[dict[str, float]],
    gallery: GalleryEmbeddings | None,
    groups: Sequence[str],
    recipe_name: str,
    data_hash: str,
) -> None:
    """Writes what a pretraining run leaves, but for the card, which is made of it.

    Args:
        arguments: the run.
        model, processor: as trained.
        metrics: `split/name`: number.
        history: logged losses.
        gallery: embeddings of the held-out clips, if there are any.
        groups: (clips of the gallery,) what each shows, to order and colour the pictures by.
        recipe_name: for metrics.json.
        data_hash: of the clips.
    """
    folder = Path(arguments.output_dir)
    with written_aside(folder) as aside:
        model.save_pretrained(aside)
        processor.save_pretrained(aside)
        write_metrics(
            aside / METRICS_FILE, metrics, recipe=recipe_name, seed=arguments.seed, data_hash=data_hash
        )
        write_pictures(aside / PICTURES, history, gallery, groups)


def write_pictures(
    folder: Path,
    history: Sequence[dict[str, float]],
    gallery: GalleryEmbeddings | None,
    groups: Sequence[str],
) -> None:
    """Loss curves; similarity matrix and embedding map, as far as there are held-out clips with speech."""
    save_loss_curves(history, folder / "loss_curves.png")
    if gallery is None:
        return
    panels = {"video": (gallery.video, groups)}
    if gallery.image is not None:
        panels["frame"] = (gallery.image, groups)
    sounding = gallery.has_sound.nonzero().flatten().tolist()
    if gallery.audio is not None and len(sounding) >= 2:
        sounding_groups = [groups[index] for index in sounding]
        panels["speech"] = (gallery.audio[sounding], sounding_groups)
        save_similarity_matrix(
            gallery.audio[sounding],
            gallery.video[sounding],
            sounding_groups,
            folder / "speech_video_similarity.png",
        )
    save_embedding_map(panels, folder / "embeddings.png")


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Within it, files go to a folder aside, which has a folder for pictures; at its end to their place.

    So an older run's files stay until the new ones are complete.
    """
    aside = folder / UNFINISHED
    shutil.rmtree(aside, ignore_errors=True)
    (aside / PICTURES).mkdir(parents=True)
    yield aside
    for entry in aside.iterdir():
        place = folder / entry.name
        if place.is_dir():
            shutil.rmtree(place)
        os.replace(entry, place)
    aside.rmdir()


def _first_difference(there: dict, arguments: PretrainArguments | FinetuneArguments) -> str | None:
    here = yaml.safe_load(arguments.to_yaml())
    for name in here:
        if name not in FREE_FIELDS and there.get(name) != here[name]:
            return f"its {name} is {there.get(name)!r}, this run's is {here[name]!r}"
    return None
