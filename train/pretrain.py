"""Pretrains DualRep on clips, or, without an argument, shows the whole way on recordings that it makes
itself.

accelerate launch train/pretrain.py                                        # the demo, some minutes
accelerate launch train/pretrain.py train/recipes/paper_medium.yaml --dataset CLIPS --output_dir OUT
accelerate launch train/pretrain.py RECIPE.yaml --resume_from_checkpoint last

SIGTERM, a cluster's notice, ends the run after a step or an evaluation's batch, with a checkpoint and exit
status 143; a job that is started again with `--resume_from_checkpoint last_or_new` goes on from there.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from datasets import IterableDataset
from tqdm import tqdm

from datasets_scripts.schema import CLIP_ID, SCAN_ID
from hub_cards.push import check_before_training, push_finished_run
from hub_cards.push_errors import PushError
from hub_cards.render import write_card
from modeling_dualrep.audio_cnn14 import DualRepAudioModel
from modeling_dualrep.configuration_dualrep import DualRepConfig
from modeling_dualrep.convert_weights import load_tower_weights
from modeling_dualrep.feature_extraction_dualrep import DualRepFeatureExtractor
from modeling_dualrep.image_processing_dualrep import DualRepImageProcessor
from modeling_dualrep.modeling_dualrep import DualRepModel
from modeling_dualrep.processing_dualrep import DualRepProcessor
from modeling_dualrep.video_processing_dualrep import DualRepVideoProcessor
from train.arguments import (
    ArgumentsError,
    PretrainArguments,
    SpeechWordsArguments,
    help_text,
    parse_arguments,
)
from train.checkpoint import (
    CheckpointError,
    agree_on_checkpoint,
    check_checkpoint,
    describe_run,
    load_checkpoint,
    remove_leftovers,
)
from train.clip_order import ScanGroups, ScanLimit, SeededBatches
from train.cpu_cores import use_free_cores
from train.cpu_memory import keep_freed_memory
from train.data_facts import write_data_facts
from train.deterministic import use_deterministic_algorithms
from train.evaluation import GalleryEmbeddings, embed_gallery, measure
from train.gallery import StoredGallery
from train.interruption import EXIT_STATUS, NoticeOfEnd, RunInterruptedError, leave_notices_to_trainer
from train.loop import Batch, DivergedError, keep_state, kept_at_notice, train
from train.model_folder import CHECKPOINTS, check_output_dir, write_model_folder, write_recipe
from train.precision import chosen_precision, training_device_type
from train.processes import check_processes
from train.retrieval import RECALL_AT
from train.speech_pretraining import (
    ReadWords,
    keep_taught,
    load_taught,
    long_log_mel,
    name_of_teaching,
    only_teacher,
    read_words,
    teach_words,
)
from train.stored_rows import StoredRowsError, data_hash, split_names
from train.stored_sound import StoredSound, TowerEmbeddings, encoded_sound
from train.training_run import TrainingRun, prepare_run, prepared_batches
from train.triples import (
    ClipKey,
    Row,
    Triples,
    check_splits,
    choose_gallery,
    draw_clips,
    gallery_batches,
    list_clips,
    only_clips,
    open_clips,
    training_batches,
)

DEMO_RECIPE = Path(__file__).parent / "recipes" / "demo.yaml"


@dataclass(frozen=True)
class Clips:
    """What a run trains and is measured on.

    Args:
        order: the training clips, in the order that the seed gives them.
        gallery: undecoded rows of held-out clips; None where there are fewer than two to search among.
        hash: of the whole set.
        dataset: the set, as `open_clips` takes it.
        sound: how they keep it, where not as waveforms.
    """

    order: SeededBatches
    gallery: StoredGallery | None
    hash: str
    dataset: str
    sound: StoredSound | None = None


def main() -> int:
    """Reads the command line and runs; an input that cannot be used ends in a sentence and exit status 2."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{__doc__}\n{help_text()}")
        return 0
    try:
        recipe = sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith("--") else DEMO_RECIPE
        pretrain(parse_arguments(sys.argv[1:], DEMO_RECIPE), Path(recipe).stem)
    except (ArgumentsError, CheckpointError, StoredRowsError, DivergedError, PushError) as error:
        print(f"pretrain.py: {error}", file=sys.stderr)
        return 2
    except RunInterruptedError as error:
        print(f"pretrain.py: {error}", file=sys.stderr)
        return EXIT_STATUS
    return 0


def pretrain(arguments: PretrainArguments, recipe_name: str) -> None:
    """The whole run: checks, clips, model, training, measurement, model folder."""
    accelerator = build_accelerator(arguments)
    arguments, checkpoint = resumed_checkpoint(accelerator, arguments)
    if accelerator.is_main_process:
        check_output_dir(arguments)
        if arguments.push_to_hub is not None:
            check_before_training(arguments.push_to_hub)
        remove_leftovers(Path(arguments.output_dir) / CHECKPOINTS)
    accelerator.wait_for_everyone()
    config = arguments.model_config()
    clips = find_clips(accelerator, arguments, config)
    description = describe_run(config, data_order(accelerator, arguments, clips))
    if checkpoint is not None:
        check_checkpoint(checkpoint, description)
    set_seed(arguments.seed)
    processor = build_processor(config)
    model = build_model(arguments, config, processor, is_new=checkpoint is None)
    if isinstance(clips.sound, TowerEmbeddings):
        accelerator.print(clips.sound.set_tower_aside(model.audio_model))
    max_steps = arguments.max_steps or arguments.num_train_epochs * clips.order.batches_per_epoch
    run = prepare_run(accelerator, arguments, model, max_steps)
    if checkpoint is not None:
        load_checkpoint(accelerator, checkpoint)
        clips.order.start_batch = run.progress.step
    if accelerator.is_main_process:
        write_recipe(arguments)
    gallery = train_and_embed(run, processor, clips, description)
    finish(run, processor, clips, gallery, recipe_name)


def build_accelerator(arguments: PretrainArguments) -> Accelerator:
    """accelerate with the run's precision and tracker; logs go beside the model.

    Raises:
        ArgumentsError: another number of processes runs than the recipe expects.
    """
    folder = Path(arguments.output_dir)
    if arguments.deterministic:
        use_deterministic_algorithms()
    accelerator = Accelerator(
        # Without it, processes that torchrun starts where there is no GPU would each train alone.
        cpu=not torch.accelerator.is_available(),
        mixed_precision=chosen_precision(arguments.mixed_precision, training_device_type()),
        log_with=None if arguments.report_to == "none" else arguments.report_to,
        project_config=ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / "logs")),
    )
    check_processes(accelerator.num_processes, arguments.expected_processes)
    use_free_cores(accelerator.device, accelerator.num_processes, arguments.dataloader_num_workers)
    keep_freed_memory(accelerator.device)
    return accelerator


def build_processor(config: DualRepConfig) -> DualRepProcessor:
    """The processor that makes what this model takes."""
    video, image = config.video_config, config.image_config
    return DualRepProcessor(
        DualRepFeatureExtractor(feature_size=config.audio_config.num_mel_bins),
        DualRepImageProcessor(size={"height": image.image_size, "width": image.image_size}),
        DualRepVideoProcessor(
            size={"height": video.image_size, "width": video.image_size}, num_frames=video.num_frames
        ),
    )


def resumed_checkpoint(
    accelerator: Accelerator, arguments: PretrainArguments
) -> tuple[PretrainArguments, Path | None]:
    """The checkpoint to go on from, or None for a new run; and the arguments, which then ask for none."""
    if arguments.resume_from_checkpoint is None:
        return arguments, None
    checkpoints = Path(arguments.output_dir) / CHECKPOINTS
    checkpoint = agree_on_checkpoint(accelerator, arguments.resume_from_checkpoint, checkpoints)
    return (arguments if checkpoint else replace(arguments, resume_from_checkpoint=None)), checkpoint


def find_clips(accelerator: Accelerator, arguments: PretrainArguments, model: DualRepConfig) -> Clips:
    """The clips of the run, made first where the recipe simulates them; checks that there are enough."""
    with accelerator.main_process_first():
        dataset = arguments.dataset or make_dataset(arguments)
    config = arguments.dataset_config
    training = draw_clips(list_clips(dataset, config, "train"), arguments.max_train_clips, arguments.seed)
    rows = open_training_clips(arguments, dataset, training)
    sound = encoded_sound(arguments, dataset, list(rows.features), model)
    held_out = (
        list_clips(dataset, config, "validation") if "validation" in split_names(dataset, config) else []
    )
    check_splits(training, held_out)
    order = SeededBatches(
        rows,
        len(training),
        arguments.per_device_train_batch_size,
        arguments.seed,
        shuffle_buffer_clips=arguments.shuffle_buffer_clips,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        composition=batch_composition(arguments, dataset, training),
    )
    gallery = read_gallery(accelerator, arguments, dataset, held_out)
    return Clips(order, gallery, data_hash(dataset, config), dataset, sound)


def open_training_clips(
    arguments: PretrainArguments, dataset: str, training: list[ClipKey], columns: Sequence[str] | None = None
) -> IterableDataset:
    """The rows of these clips, with all columns or these alone."""
    rows = open_clips(dataset, arguments.dataset_config, "train", columns)
    return rows if arguments.max_train_clips is None else only_clips(rows, training)


def batch_composition(
    arguments: PretrainArguments, dataset: str, training: list[ClipKey]
) -> ScanLimit | ScanGroups | None:
    """Of which scans a batch is made up, if the run says it."""
    if arguments.max_clips_of_scan is None and arguments.clips_of_scan_together is None:
        return None
    scan_ids = open_training_clips(arguments, dataset, training, columns=(CLIP_ID, SCAN_ID))
    if arguments.clips_of_scan_together is not None:
        return ScanGroups(arguments.clips_of_scan_together, arguments.shuffle_buffer_clips, scan_ids)
    clips_of_scans = Counter(key.scan_id for key in training)
    return ScanLimit(arguments.max_clips_of_scan, clips_of_scans, scan_ids)


def read_gallery(
    accelerator: Accelerator, arguments: PretrainArguments, dataset: str, held_out: list[ClipKey]
) -> StoredGallery | None:
    """The held-out clips that retrieval is measured on; too few of them and the run goes on without."""
    if len(held_out) < 2:
        accelerator.print(
            f"There are {len(held_out)} held-out clips, too few to search among: nothing will be measured on "
            "held-out scans. Prepare clips of more scans to see what the model learns."
        )
        return None
    chosen = choose_gallery(held_out, arguments.evaluation_clips)
    return StoredGallery(dataset, arguments.dataset_config, "validation", held_out, chosen)


def make_dataset(arguments: PretrainArguments) -> str:
    """The folder of the clips that the recipe's simulation gives."""
    from train import demo  # needs the speech synthesiser, which a run on clips does without

    return str(demo.make_clips(arguments))


def data_order(accelerator: Accelerator, arguments: PretrainArguments, clips: Clips) -> dict[str, Any]:
    """What the order of the clips follows from."""
    return {
        "data_hash": clips.hash,
        "seed": arguments.seed,
        "per_device_train_batch_size": arguments.per_device_train_batch_size,
        "max_train_clips": arguments.max_train_clips,
        "shuffle_buffer_clips": arguments.shuffle_buffer_clips,
        "max_clips_of_scan": arguments.max_clips_of_scan,
        "clips_of_scan_together": arguments.clips_of_scan_together,
        "processes": accelerator.num_processes,
    }


def build_model(
    arguments: PretrainArguments, config: DualRepConfig, processor: DualRepProcessor, is_new: bool
) -> DualRepModel:
    """The model with its first weights: drawn, loaded into a tower, or taught everyday words.

    Raises:
        ArgumentsError: the weights of a tower cannot be read, or do not fit it.
    """
    model = DualRepModel(config)
    if not is_new:
        return model
    for name in ("video", "audio", "image"):
        weights = getattr(arguments, f"{name}_weights")
        if weights is not None:
            path = Path(weights.path) if weights.path else None
            try:
                load_tower_weights(getattr(model, f"{name}_model"), weights.source, path)
            except (OSError, ValueError) as error:
                raise ArgumentsError(f"{name}_weights: {error}") from error
    if arguments.speech_words.steps:
        teach_speech_tower(arguments, model, processor)
    return model


def teach_speech_tower(
    arguments: PretrainArguments, model: DualRepModel, processor: DualRepProcessor
) -> None:
    """Everyday words for the speech tower, as the recipe's section speech_words says."""
    words, tower = arguments.speech_words, model.audio_model
    if words.kept_in is None:
        teach_aloud(arguments, tower, processor)
        return
    folder, name = Path(words.kept_in), name_of_teaching(tower, words, arguments.seed)
    with only_teacher(folder, name):
        if load_taught(tower, folder, name):
            print(f"The speech tower was taught everyday words before: {folder}/{name}.")
            return
        teach_aloud(arguments, tower, processor)
        keep_taught(tower, folder, name)


def teach_aloud(arguments: PretrainArguments, tower: DualRepAudioModel, processor: DualRepProcessor) -> None:
    """Teaches the tower, and prints how well it hears."""
    words = arguments.speech_words
    accuracy = teach_words(tower, readings_heard(words, arguments.seed, processor), words, arguments.seed)
    print(
        f"The speech tower tells {words.words} everyday words apart: at {accuracy:.0%} of the moments of a "
        "voice that it had not heard it names the right one."
    )


def readings_heard(words: SpeechWordsArguments, seed: int, processor: DualRepProcessor) -> list[ReadWords]:
    """Everyday words read aloud, as the speech tower hears them."""
    from datasets_scripts.spoken_words import read_aloud  # needs the speech synthesiser

    extractor = processor.feature_extractor
    frames_a_second = extractor.sampling_rate / extractor.hop_length
    return [
        read_words(
            long_log_mel(processor, reading.waveform),
            zip(reading.start_s, reading.end_s, reading.words.tolist(), strict=True),
            frames_a_second,
        )
        for reading in tqdm(read_aloud(words.words, words.readers, seed), total=words.readers, unit="voice")
    ]


def train_and_embed(
    run: TrainingRun, processor: DualRepProcessor, clips: Clips, description: dict[str, Any]
) -> GalleryEmbeddings | None:
    """Trains the run to its end; returns the embeddings of the gallery, if there is one."""
    arguments, accelerator = run.arguments, run.accelerator
    model = accelerator.unwrap_model(run.model)
    held_out = build_triples(arguments, model.config, processor, augmented=False, sound=clips.sound)
    checkpoints = Path(arguments.output_dir) / CHECKPOINTS

    def embed() -> GalleryEmbeddings:
        batches = gallery_batches(held_out, clips.gallery, arguments.per_device_train_batch_size)
        with torch.compiler.set_stance("force_eager"):  # compiling takes longer than these few batches
            return embed_gallery(model, notice.until_it_comes(batches), accelerator.device)

    accelerator.init_trackers("dualrep")
    evaluate = (lambda: measure(embed())) if clips.gallery else None
    batches, gallery = batches_of_run(run, processor, clips), None
    try:
        with NoticeOfEnd(accelerator) as notice:
            train(run, batches, evaluate, checkpoints, description, notice)
            # What is measured in the end is the model as it is saved: in float32, whatever it was trained in.
            accelerator.unwrap_model(model, keep_fp32_wrapper=False)
            with kept_at_notice(run, lambda: keep_state(run, checkpoints, description)):
                gallery = embed() if clips.gallery else None
    except RunInterruptedError:
        accelerator.end_training()
        raise
    accelerator.end_training()
    return gallery


def batches_of_run(run: TrainingRun, processor: DualRepProcessor, clips: Clips) -> Iterator[Batch]:
    """Endless batches of varied clips, from the run's next one on."""
    config = run.accelerator.unwrap_model(run.model).config
    triples = build_triples(run.arguments, config, processor, augmented=True, sound=clips.sound)
    workers = run.arguments.dataloader_num_workers
    on_gpu = run.accelerator.device.type == "cuda"
    loader = training_batches(triples, clips.order, workers, pin_memory=on_gpu)
    loader.worker_init_fn = leave_notices_to_trainer
    return prepared_batches(run, loader, triples.statistics)


def build_triples(
    arguments: PretrainArguments,
    config: DualRepConfig,
    processor: DualRepProcessor,
    augmented: bool,
    sound: StoredSound | None = None,
) -> Triples:
    """How rows become triples, in training or for evaluation; without `sound`, they hold waveforms."""
    return Triples(
        processor,
        config.num_frames,
        config.video_config.image_size,
        config.image_config.image_size,
        arguments.seed,
        augmentation=arguments.augmentation if augmented else None,
        speech_augmentation=arguments.speech_augmentation if augmented else None,
        minimum_speech_fraction=arguments.minimum_speech_fraction,
        use_audio=config.use_audio,
        use_image=config.use_image,
        keep_in_memory=arguments.keep_clips_in_memory,
        near_duplicate_seconds=arguments.near_duplicate_seconds if augmented else None,
        sound=sound,
    )


def finish(
    run: TrainingRun,
    processor: DualRepProcessor,
    clips: Clips,
    gallery: GalleryEmbeddings | None,
    recipe_name: str,
) -> None:
    """Measures, writes the model folder and says what was learnt."""
    arguments, accelerator = run.arguments, run.accelerator
    if not accelerator.is_main_process:
        return
    model = accelerator.unwrap_model(run.model)
    metrics = {"train/loss": run.progress.history[-1]["loss"]} if run.progress.history else {}
    groups = clips.gallery.scan_ids if clips.gallery else []
    if gallery is not None:
        metrics |= {f"validation/{name}": value for name, value in measure(gallery, groups).items()}
        if arguments.simulation is not None:
            from train import demo

            rows = list(clips.gallery)  # of a simulation, which has few
            metrics |= control_metrics(run, processor, demo.control_rows(arguments, rows))
            groups = demo.planes(arguments, rows)
    write_model_folder(
        arguments,
        model,
        processor,
        metrics,
        run.progress.history,
        gallery,
        groups,
        recipe_name,
        clips.hash,
    )
    write_data_facts(Path(arguments.output_dir), clips.dataset, arguments.dataset_config)
    write_card(Path(arguments.output_dir))
    if gallery is not None:
        print(results_text(metrics, len(set(clips.gallery.scan_ids))))
    print(f"Model, card, metrics.json and pictures: {arguments.output_dir}")
    if arguments.push_to_hub is not None:
        print(push_finished_run(arguments.output_dir, arguments.push_to_hub))


def control_metrics(run: TrainingRun, processor: DualRepProcessor, rows: list[Row]) -> dict[str, float]:
    """How well speech of another plane, by the same voice, finds the clips that it was put under."""
    model = run.accelerator.unwrap_model(run.model)
    held_out = build_triples(run.arguments, model.config, processor, augmented=False)
    batches = gallery_batches(held_out, rows, len(rows))
    gallery = embed_gallery(model, batches, run.accelerator.device)
    measured = measure(gallery, [row[SCAN_ID] for row in rows])
    return {f"control/{name}": value for name, value in measured.items() if name.startswith("speech_to")}


def results_text(metrics: dict[str, float], scans: int) -> str:
    """Recall beside chance, as a table for people."""
    lines = [
        f"Retrieval among {metrics['validation/gallery_clips']:.0f} clips of {scans} held-out scans:",
        f"{'':34}" + "".join(f"{f'recall at {k}':>14}" for k in RECALL_AT),
    ]
    rows = {
        "frame to video": "validation/image_to_video_recall",
        "speech to video": "validation/speech_to_video_recall",
        "the same voice on another plane": "control/speech_to_video_recall",
        "chance": "validation/chance_recall",
    }
    for title, name in rows.items():
        values = [metrics.get(f"{name}_at_{k}") for k in RECALL_AT]
        if None not in values:
            lines.append(f"{title:34}" + "".join(f"{value:>14.1%}" for value in values))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
