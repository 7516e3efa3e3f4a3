"""A run's folder reaches the Hub whole, once, privately and checked, or not at all."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hub_helpers import (
    METRICS,
    READER,
    STRANGER,
    TOKEN,
    hub_in_this_process,
    run_child,
    write_run,
    write_task_run,
)
from hub_stand_in import Fault, HubStandIn
from huggingface_hub import ModelCard
from huggingface_hub.hf_api import RepoFile
from safetensors.torch import load_file, save_file
from tiny_models import tiny_batch, tiny_model

from hub_cards import hub_repository
from hub_cards.hub_repository import check_login
from hub_cards.push import check_before_training, main, push_finished_run, push_run
from hub_cards.push_errors import PushError, sentence, told_in_sentences, without_credentials, without_token
from modeling_dualrep import DualRepForImageClassification

NAME = "me/tiny"
PUBLISHED = {
    "README.md",
    "config.json",
    "metrics.json",
    "model.safetensors",
    "pictures/loss_curves.png",
    "processor_config.json",
    "recipe.yaml",
}

LOAD = """
import sys

sys.modules["modeling_dualrep"] = None  # whoever imports it fails
import torch
from transformers import AutoModel, AutoModelForImageClassification, AutoProcessor

expected = torch.load(sys.argv[1], weights_only=False)
torch.set_num_threads(expected["threads"])
batch, trust = expected["batch"], {"trust_remote_code": True}
with torch.no_grad():
    outputs = AutoModel.from_pretrained("me/tiny", **trust)(**batch)
    planes = AutoModelForImageClassification.from_pretrained("me/planes", **trust)
    logits = planes(batch["pixel_values"]).logits
for name in ("video_embeds", "audio_embeds", "image_embeds"):
    assert torch.equal(outputs[name], expected[name]), name
assert torch.equal(logits, expected["logits"])
processor = AutoProcessor.from_pretrained("me/tiny", revision="v0.1.0", **trust)
assert type(processor).__name__ == "DualRepProcessor"
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder that no test changes."""
    return write_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def task_run(finished: Path, tmp_path: Path) -> Path:
    return write_task_run(tmp_path / "planes", finished)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    with hub_in_this_process(monkeypatch) as hub:
        yield hub


def commits(hub: HubStandIn, name: str = NAME) -> int:
    """Commits besides the one that the Hub makes a repository with."""
    return len(hub.repositories["model", name].commits) - 1


def test_a_push_and_a_load_go_round_between_processes(
    finished: Path, task_run: Path, tmp_path: Path, hub: HubStandIn
) -> None:
    """At the Hub's most talkative, no token is told; what is loaded never saw this package."""
    address, batch = f"http://127.0.0.1:{hub.port}", tiny_batch(2)
    command = ("-m", "hub_cards.push", str(finished), NAME, "--tag", "v0.1.0")
    pushed = run_child(address, tmp_path / "home", *command, HF_DEBUG="1", TRANSFORMERS_VERBOSITY="debug")
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.startswith(f"Published {address}/{NAME} (private) at commit ")
    assert "Send: curl" in pushed.stderr  # it is talkative
    assert TOKEN not in pushed.stdout + pushed.stderr
    assert main([str(task_run), "me/planes", "--base_model", NAME]) == 0
    model, planes = tiny_model(), DualRepForImageClassification.from_pretrained(task_run)
    with torch.no_grad():
        outputs, logits = dict(model(**batch)), planes.eval()(batch["pixel_values"]).logits
    names = ("video_embeds", "audio_embeds", "image_embeds")
    expected = {"threads": torch.get_num_threads(), "batch": batch, "logits": logits}
    torch.save(expected | {name: outputs[name] for name in names}, tmp_path / "expected.pt")
    loaded = run_child(
        address, tmp_path / "elsewhere", "-I", "-c", LOAD, str(tmp_path / "expected.pt"), cwd=tmp_path
    )
    assert loaded.returncode == 0, loaded.stderr
    repository = hub.repositories["model", NAME]
    assert repository.private and commits(hub) == 1
    assert repository.tags == {"v0.1.0": repository.head}
    code = {path.name for path in finished.glob("*.py")}
    assert set(repository.files) == PUBLISHED | code | {".gitattributes"}
    assert repository.files["model.safetensors"].lfs and not repository.files["config.json"].lfs
    assert hub.count("PUT /lfs/part/") > 1 and hub.count("PUT /lfs/whole/") >= 1  # both ways of LFS
    for path in PUBLISHED - {"README.md", "recipe.yaml"}:
        assert repository.files[path].content == (finished / path).read_bytes()
    assert b'from_pretrained("me/tiny"' in repository.files["README.md"].content
    assert yaml.safe_load(repository.files["recipe.yaml"].content) == {
        "output_dir": "tiny",
        "dataset": "org/clips",
        "model": None,
    }


def test_a_second_push_changes_nothing(
    run: Path, hub: HubStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    push_run(run, NAME)
    hub.heard.clear()
    assert main([str(run), NAME]) == 0
    assert capsys.readouterr().out.startswith("Nothing changed: ")
    assert commits(hub) == 1
    assert not hub.count("^(PUT|POST)")


def test_what_changed_alone_is_sent(run: Path, hub: HubStandIn) -> None:
    push_run(run, NAME)
    hub.heard.clear()
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"seed": 1}))
    (run / "pictures" / "loss_curves.png").unlink()
    published = push_run(run, NAME)
    assert (published.sent, published.removed) == (("metrics.json",), ("pictures/loss_curves.png",))
    assert str(published).endswith(": 1 files new or changed, 1 removed.")
    files = hub.repositories["model", NAME].files
    assert json.loads(files["metrics.json"].content)["seed"] == 1
    assert "pictures/loss_curves.png" not in files and "model.safetensors" in files
    assert commits(hub) == 2 and not hub.count("PUT")


def test_weights_of_the_same_size_are_sent_when_they_changed(run: Path, hub: HubStandIn) -> None:
    push_run(run, NAME)
    tensors = load_file(run / "model.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    save_file(tensors | {name: tensors[name] + 1}, run / "model.safetensors", metadata={"format": "pt"})
    assert push_run(run, NAME).sent == ("model.safetensors",)
    content = hub.repositories["model", NAME].files["model.safetensors"].content
    assert content == (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["request", "answer", 503])
@pytest.mark.parametrize(
    "request_lost",
    [
        "GET /api/whoami",
        "GET /api/models/me/tiny$",
        "GET .*/tree/",
        "GET .*/refs",
        "POST /api/repos/create",
        "POST /api/validate-yaml",
        "POST .*/preupload/",
        "POST .*/objects/batch",
        "PUT /lfs/part/.*/2$",
        "PUT /lfs/whole/",
        "POST /lfs/complete/",
        "POST /lfs/verify",
        "POST .*/commit/",
        "PUT .*/settings",
        "POST .*/tag/",
    ],
)
def test_a_connection_that_breaks_once_is_gone_over(
    request_lost: str, kind: str | int, run: Path, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the request or its answer is lost; each part that arrived is sent once."""
    hub.faults.append(Fault(request_lost, kind=kind))
    published = push_run(run, NAME, public=True, tag="v0.1.0")
    assert not hub.faults[0].times
    repository = hub.repositories["model", NAME]
    assert commits(hub) == 1 and repository.tags == {"v0.1.0": published.commit} and not repository.private
    assert "model.safetensors" in published.sent and str(published).startswith("Published ")
    if "PUT /lfs" not in request_lost:
        assert hub.count("PUT /lfs/part/.*/2$") == hub.count("PUT /lfs/whole/") == 1


def test_a_push_that_was_cut_off_goes_on_from_what_arrived(run: Path, hub: HubStandIn) -> None:
    hub.faults.append(Fault("PUT /lfs/part/.*/2$", times=1000))
    with pytest.raises(PushError, match=r"broke the connection.*Run the same command again: it goes on"):
        push_run(run, NAME, public=True)
    repository = hub.repositories["model", NAME]
    assert repository.private and commits(hub) == 0
    pictures_sent = hub.count("PUT /lfs/whole/")
    assert pictures_sent == 1
    hub.faults.clear()
    assert "model.safetensors" in push_run(run, NAME, public=True).sent
    assert commits(hub) == 1 and hub.count("PUT /lfs/whole/") == pictures_sent


def test_a_release_stays_what_it_was(run: Path, hub: HubStandIn) -> None:
    first = push_run(run, NAME, tag="v0.1.0")
    assert push_run(run, NAME, tag="v0.1.0").commit == first.commit  # the same again
    (run / "metrics.json").write_text((run / "metrics.json").read_text() + "\n")
    with pytest.raises(PushError, match=r"release v0\.1\.0 already.*choose the next tag"):
        push_run(run, NAME, tag="v0.1.0")
    assert commits(hub) == 1
    second = push_run(run, NAME, tag="v0.1.1")
    assert hub.repositories["model", NAME].tags == {"v0.1.0": first.commit, "v0.1.1": second.commit}
    with pytest.raises(PushError, match="already"):
        push_run(run, NAME, tag="v0.1.0")


@pytest.mark.parametrize("tag", ["", "v 1", "../x", "a..b", "-x"])
def test_a_tag_that_git_refuses_is_refused_first(tag: str, run: Path, hub: HubStandIn) -> None:
    with pytest.raises(PushError, match=r"name it like v0\.1\.0"):
        push_run(run, NAME, tag=tag)
    assert not hub.heard


def test_it_becomes_public_when_all_has_arrived(run: Path, hub: HubStandIn) -> None:
    assert main([str(run), NAME, "--public", "--yes"]) == 0
    assert not hub.repositories["model", NAME].private
    order = [f"{each.method} {each.path}" for each in hub.heard]
    assert order.index(f"PUT /api/models/{NAME}/settings") > order.index(
        f"POST /api/models/{NAME}/commit/main"
    )
    with pytest.raises(PushError, match="is public: pass --public"):
        push_run(run, NAME)


@pytest.mark.parametrize(
    ("typed", "is_terminal", "told"),
    [(NAME, True, ""), ("yes", True, "not confirmed"), (NAME, False, "add --yes")],
)
def test_public_is_confirmed_by_typing_the_name(
    typed: str,
    is_terminal: bool,
    told: str,
    run: Path,
    hub: HubStandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: typed)
    assert main([str(run), NAME, "--public"]) == (2 if told else 0)
    assert told in capsys.readouterr().err
    assert bool(hub.heard) == (not told)


def test_a_task_model_names_its_base(
    task_run: Path, hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PushError, match="--base_model ORG/NAME"):
        push_run(task_run, "me/planes")
    for name in ("runs/demo/model", str(task_run), "tiny", "runs/base"):
        with pytest.raises(PushError, match="base model"):
            push_run(task_run, "me/planes", base_model=name)
    assert not hub.heard
    push_run(task_run, "me/planes", base_model=NAME)
    card = ModelCard(hub.repositories["model", "me/planes"].files["README.md"].content.decode())
    assert card.data.base_model == NAME and card.data.license == "apache-2.0"


@pytest.mark.parametrize("start", ["random", "imagenet"])
def test_a_task_model_from_nothing_of_ours_names_none(start: str, task_run: Path, hub: HubStandIn) -> None:
    (task_run / "recipe.yaml").write_text(f"model: {start}\n")
    assert "README.md" in push_run(task_run, "me/planes").sent


def test_a_folder_that_must_not_be_published_is_refused_before_anything(
    run: Path, hub: HubStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "README.md").write_text("---\nlicense: [\n---\n")
    assert main([str(run), NAME]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("push: ") and output.err.count("\n") == 1 and not output.out
    assert not hub.heard


@pytest.mark.parametrize(
    "name", ["tiny", "a/b/c", "me/ti ny", "me/-x", "me/a..b", "me/x.git", "", "me/" + 99 * "x"]
)
def test_a_name_that_the_hub_refuses_is_refused_first(name: str, run: Path, hub: HubStandIn) -> None:
    shutil.rmtree(run)  # not even the folder is looked at
    with pytest.raises(PushError, match=r"refuses the name|has no owner"):
        push_run(run, name)
    with pytest.raises(PushError, match=r"refuses the name|has no owner"):
        check_login(name)
    assert not hub.heard


@pytest.mark.parametrize(
    ("token", "name", "told"),
    [
        (READER, "reader/tiny", "no permission to write to reader/tiny"),
        (TOKEN, "others/tiny", "no permission to write to others/tiny"),
        (STRANGER, NAME, "does not take your token"),
        (None, NAME, "You are not logged in"),
    ],
)
def test_who_may_not_write_is_told(
    token: str | None,
    name: str,
    told: str,
    run: Path,
    hub: HubStandIn,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_STORED_TOKENS_PATH", str(tmp_path / "none_stored"))
    monkeypatch.delenv("HF_TOKEN")
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PushError, match=told) as error:
        push_run(run, name)
    assert "secret" not in str(error.value) and error.value.__cause__ is None
    assert not hub.repositories


def test_a_repository_that_one_may_only_read_stays_as_it_is(
    run: Path, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_run(run, NAME)
    (run / "metrics.json").write_text(json.dumps(METRICS | {"seed": 1}))
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(PushError, match=f"no permission to write to {NAME}"):
        push_run(run, NAME)
    assert commits(hub) == 1


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (Fault("GET /api/whoami", times=99), "cannot be reached"),
        (Fault("POST .*/commit/", times=99, kind=503), r"too busy \(status 503\)"),
        (Fault("POST .*/commit/", kind=412), "Somebody else pushed"),
        (Fault("POST /api/repos/create", kind=409), "exists on .*, but not for this token"),
        (Fault("POST .*/commit/", kind=403), "no permission"),
        (Fault("PUT /lfs/", kind=422), "refused what was sent"),
    ],
)
def test_a_hub_that_does_not_take_it_publishes_nothing(
    answers: Fault, told: str, run: Path, hub: HubStandIn
) -> None:
    hub.faults.append(answers)
    with pytest.raises(PushError, match=told):
        push_run(run, NAME)
    assert all(len(each.commits) == 1 and each.private for each in hub.repositories.values())


def test_what_somebody_else_pushes_meanwhile_is_not_overwritten(
    run: Path, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_run(run, NAME)
    (run / "metrics.json").write_text(json.dumps(METRICS | {"seed": 1}))
    repository, compare = hub.repositories["model", NAME], hub_repository._differs

    def differs(content: Path | bytes, there: RepoFile | None) -> bool:
        """As it is, with a commit of somebody else before the first comparison ends."""
        if len(repository.commits) == 2:
            repository.add(dict(repository.files), "somebody else")
        return compare(content, there)

    monkeypatch.setattr(hub_repository, "_differs", differs)
    with pytest.raises(PushError, match="Somebody else pushed to me/tiny at the same time"):
        push_run(run, NAME)
    assert repository.messages[-1] == "somebody else"


def test_a_repository_of_something_else_is_left_alone(run: Path, task_run: Path, hub: HubStandIn) -> None:
    push_run(task_run, NAME, base_model="me/base")
    with pytest.raises(
        PushError, match=r"another model: its architectures is .*ImageClassification.*new name"
    ):
        push_run(run, NAME)
    assert commits(hub) == 1
    push_run(run, "me/mixed")
    repository = hub.repositories["model", "me/mixed"]
    before = repository.files
    for name in ("tokenizer.json", "config.json.bak", "data/x.png"):
        repository.add(before | {name: before["config.json"]}, "by hand")
        with pytest.raises(PushError, match=f"holds files that no push of ours wrote: {re.escape(name)}"):
            push_run(run, "me/mixed")
    without_config = {name: file for name, file in repository.files.items() if name in ("README.md",)}
    repository.add(without_config, "by hand")
    with pytest.raises(PushError, match=r"no config\.json"):
        push_run(run, "me/mixed")


def test_a_training_learns_at_its_start_what_its_push_would_be_refused_for(
    task_run: Path, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in (None, "random", "imagenet", NAME):
        check_before_training("me/planes", model)
    for model in ("runs/demo/model", str(task_run)):
        with pytest.raises(PushError, match="push that one first"):
            check_before_training("me/planes", model)
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    with pytest.raises(PushError, match="does not take your token"):
        check_before_training("me/planes")


def test_a_finished_training_is_pushed_with_its_base(task_run: Path, hub: HubStandIn) -> None:
    again = r"The run is finished; publish it later with `python -m hub_cards\.push .* me/planes`"
    with pytest.raises(PushError, match=again):
        push_finished_run(task_run, "me/planes", "runs/demo/model")
    push_finished_run(task_run, "me/planes", NAME)
    card = ModelCard(hub.repositories["model", "me/planes"].files["README.md"].content.decode())
    assert card.data.base_model == NAME


def test_a_hub_without_xet_is_told_of() -> None:
    """hf_xet raises a plain ConnectionError where a hub has none."""
    assert "HF_HUB_DISABLE_XET=1" in sentence(ConnectionError("404"), NAME)


@pytest.mark.slow
def test_no_network_is_a_sentence(finished: Path, tmp_path: Path) -> None:
    """In a child, which nothing listens to."""
    command = ("-m", "hub_cards.push", str(finished), NAME)
    pushed = run_child("http://127.0.0.1:9", tmp_path, *command, HF_DEBUG="1")
    assert pushed.returncode == 2
    assert pushed.stderr.splitlines()[-1].startswith("push: http://127.0.0.1:9 cannot be reached")
    assert TOKEN not in pushed.stdout + pushed.stderr


def test_offline_is_a_sentence(run: Path, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PushError, match="HF_HUB_OFFLINE is set"):
        push_run(run, NAME)


def test_tokens_and_passwords_are_blacked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "anything-at-all")
    text = without_token("anything-at-all, hf_abcDEF012 and api_org_x9")
    assert text == "<token>, <token> and <token>"
    for token in ("anything-at-all", "hf_abcDEF012"):
        with pytest.raises(PushError) as error, told_in_sentences(NAME):
            raise ValueError(f"the server\nsaid {token}")
        assert str(error.value) == f"{NAME} could not be pushed: the server said <token>"
    assert without_credentials("https://me:pass@hub.org/a/b") == "https://hub.org/a/b"
