"""``report.html`` of runs whose classes and files have names that mean something to a browser."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import visit
from conftest import scores_of
from PIL import Image

from ftexp.data.samples import Sample
from ftexp.errors import CheckpointError
from ftexp.evaluation.scores import Scores
from ftexp.inference.calibration import AbstainRule, checkpoint_digest
from ftexp.inference.calibration import Calibration as Stored
from ftexp.models.blocks import Network
from ftexp.report.page.examples import choose, draw_examples
from ftexp.report.page.facts import Facts
from ftexp.report.page.page import write_report
from ftexp.tracking.report_page import NO_PICTURES, without_pictures

HOSTILE = "<script>document.title='hacked'</script>"
CLASSES = ["ant", HOSTILE, '"><img src=http://127.0.0.1:9/x onerror=alert(1)>', "<!--pictures-->"]
VOID = {"meta", "img", "br", "link", "input"}
# SVG's elements that close themselves.
ALONE = {"rect", "line", "polyline", "circle"}


def write_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def finished_run(folder: Path, classes: list[str], **result: object) -> None:
    """Write what a finished run leaves, as far as the page reads it."""
    epoch = {"phase": "head", "train_loss": 1.5, "val_loss": "", "val_accuracy": 0.5, "val_macro_f1": 0.4}
    epoch |= {
        "grad_norm": 1,
        "head_change": 0.1,
        "lr_head": 0.1,
        "lr_backbone": "",
        "images_per_second": 9,
        "seconds": 1,
    }
    write_csv(folder / "metrics.csv", [{**epoch, "epoch": number, "best": number == 1} for number in (1, 2)])
    group = {"phase": "head", "block": HOSTILE, "role": "head", "tensors": 2, "parameters": 28, "lr": 0.1}
    write_csv(folder / "param_groups.csv", [{**group, "weight_decay": 0.01, "trainable": True}])
    splits = [{"path": f"{HOSTILE}/{i}", "label": classes[i % len(classes)], "split": "val"} for i in range(12)]
    write_csv(folder / "splits.csv", splits)
    leak = {"kind": "same_image", "severity": "fail", "split_a": "val", "path_a": HOSTILE, "split_b": "train"}
    write_csv(folder / "leaks.csv", [{**leak, "path_b": "b", "score": 1}])
    Image.new("RGB", (30, 20), "red").save(folder / "leaks.png")
    phase = {"name": "head", "epochs": 2, "trainable_parameters": 28, "seconds": 2.0, "best_epoch": 1}
    diagnosis = {"signal": "overfitting", "sentence": HOSTILE, "override": "augment=light"}
    gate = {"kept": False, "before": 0.5, "after": 0.25, "gained": 1, "lost": 4, "p_value": None}
    phases = [{**phase, "verdict": "kept", "val_accuracy": 0.5, "diagnosis": diagnosis}]
    phases += [{**phase, "name": "all", "verdict": "dropped", "val_accuracy": 0.25, "diagnosis": None, "gate": gate}]
    phases += [{"name": "never", "epochs": 0, "verdict": "skipped"}]
    best_case = {**gate, "after": 1.0, "gained": 2, "lost": 0, "p_value": 0.25}
    phases += [{"name": "hopeless", "epochs": 0, "verdict": "skipped", "best_case": best_case}]
    content = {
        "status": "finished",
        "metric": "accuracy",
        "best": {"epoch": 1, "val_loss": None, "val_accuracy": 0.5, "val_accuracy_ci95": [0.25, 0.75]},
        "test": None,
        "baseline": {"split": "validation", "class": classes[1], "accuracy": 0.25},
        "phases": phases,
        "labels": {"num_images": 12, "suspects": 2},
        "diagnosis": diagnosis,
        "images_per_second": 9.0,
        "peak_memory_mib": None,
        "seconds": 12.5,
        "mlflow_run_id": None,
    }
    (folder / "result.json").write_text(json.dumps({**content, **result}))
    config = {
        "model": {"name": "tiny"},
        "data": {"source": HOSTILE, "split": "auto", "seed": 0},
        "audit": {"on_leak": "warn"},
        "tracking": {"experiment": "ftexp"},
    }
    identity = {"classes": classes, "config": config, "overrides": ["data.root=a b"], "data_digest": "c5a9"}
    (folder / "run.json").write_text(json.dumps({**identity, "batch_size": 4, "versions": {"torch": "2.15"}}))


def samples_and_scores(classes: list[str], num: int = 12) -> tuple[list[Sample], Scores]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (num, 8, 8, 3)).astype(np.uint8)
    samples = [Sample(f"{HOSTILE}/{i}", classes[i % len(classes)], pixels=pixels[i]) for i in range(num)]
    labels = [i % len(classes) for i in range(num)]
    made = scores_of(labels, [0] * num, len(classes))
    sure = np.linspace(0.3, 0.9, num, dtype=np.float32)[:, None]
    others = np.repeat((1 - sure) / (len(classes) - 1), len(classes) - 1, axis=1)
    probabilities = np.concatenate([sure, others], axis=1)
    return samples, Scores(
        made.labels,
        made.predictions,
        made.ranks,
        np.arange(num, dtype=np.float64),
        len(classes),
        np.log(probabilities),
    )


class Seen(HTMLParser):
    """Collects tags, addresses and text; a tag that nothing closes, or that nobody opened, is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALONE

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def page(network: Network, tmp_path: Path) -> Path:
    finished_run(tmp_path, CLASSES)
    samples, scores = samples_and_scores(CLASSES)
    network.module.eval()
    return write_report(tmp_path, network, samples, scores)


def test_the_page_is_whole_and_alone_and_names_stay_text(page: Path) -> None:
    html = page.read_text()
    seen = Seen(html)
    assert seen.tags.count("script") == 1
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in seen.addresses)
    assert HOSTILE in seen.text
    assert len(html) < 5_000_000
    text = " ".join(" ".join(seen.text).split())
    for part in (
        "0.2500 to 0.7500",
        "3 of 12 validation images are right",
        "augment=light",
        "all dropped, and the weights before it restored",
        "Not begun: the gate dropped a phase before it.",
        "Not begun: 2 of 12 images are still wrong; even with all right, validation accuracy would go",
        "8 of the 9 that are wrong",
        "too sure",
        "same image (fail)",
        "python -m ftexp 'data.root=a b'",
        "python -m ftexp.labels 'data.root=a b'",
        "Of the labels of train and val, about 2 of 12 look wrong to heads that did not see the image",
        f"python -m ftexp.report {page.parent}",
    ):
        assert part in text, part
    assert sum(address.startswith("data:image") for address in seen.addresses) == 2 * 12 + 1  # the pairs that leak


def test_a_calibration_is_on_the_page_that_is_written_after_it(page: Path, network: Network) -> None:
    assert "temperature" not in page.read_text()
    (checkpoint := page.parent / "checkpoints" / "best.pt").parent.mkdir()
    checkpoint.write_bytes(b"weights")
    before, after = ({"log_loss": loss, "ece": ece, "adaptive_ece": 0.5} for loss, ece in ((0.9, 0.2), (0.7, 0.1)))
    abstain = AbstainRule(0.99, 0.875, 0.5, 1.0)
    Stored(checkpoint_digest(checkpoint), 12, 0.125, before, after, abstain=abstain).write(checkpoint)
    samples, scores = samples_and_scores(CLASSES)
    text = " ".join(Seen(write_report(page.parent, network, samples, scores).read_text()).text)
    assert "divided by the temperature 0.125, which was fitted to these 12 images" in text
    assert "log loss would be 0.900 instead of 0.700, and the expected calibration error 0.200 instead of 0.100" in text
    plain, tempered = (draw_examples(network, samples, CLASSES, scores, temperature) for temperature in (1.0, 0.125))
    odds = [np.log(one.most_wrong[0].top[0][1] / one.most_wrong[0].top[1][1]) for one in (plain, tempered)]
    assert odds[0] == pytest.approx(0.125 * odds[1], rel=1e-3)
    assert f"{tempered.most_wrong[0].top[0][1]:.3f}" in text
    sure = scores.at(0.125).confidences.mean()
    assert f"On average the network is {sure:.3f} sure" in text
    assert "below probability 0.875 get no answer, and 50.0 % of the images get one" in text


def test_what_goes_to_a_server_has_neither_images_nor_their_names(page: Path) -> None:
    html = without_pictures(page.read_text())
    seen = Seen(html)
    assert "img" not in seen.tags
    assert html.count(NO_PICTURES) == 2
    assert f"{HOSTILE}/" not in "".join(seen.text)
    assert "Calibration" in seen.text  # what comes after the images


def test_in_a_browser_nothing_is_requested_and_nothing_of_others_runs(page: Path, tmp_path: Path) -> None:
    seen = visit(page, tmp_path)
    assert seen.console == []
    assert {url for url in seen.requests if url.startswith("http")} == set()
    assert "<title>tiny on &lt;script&gt;" in seen.html
    other = tmp_path / "other.html"
    other.write_text(
        "<title>a</title><img src=http://127.0.0.1:9/x><script>document.title='b';console.log('c')</script>"
    )
    seen = visit(other, tmp_path)  # what a page would look like that does
    assert "http://127.0.0.1:9/x" in seen.requests
    assert any("c" in line for line in seen.console)
    assert "<title>b</title>" in seen.html


def test_tables_are_sorted_by_a_click(page: Path, tmp_path: Path) -> None:
    script = page.read_text().partition("<script>")[2].partition("</script>")[0]
    table = "<table class=sortable><thead><tr><th><button>n</button></th></tr></thead><tbody>"
    rows = "".join(f"<tr><td data-value='{value}'>x</td></tr>" for value in ("2", "", "10", "9"))
    click = f"<script>{script}\ndocument.querySelector('button').click()</script>"
    other = tmp_path / "table.html"
    other.write_text(f"<!doctype html>{table}{rows}</tbody></table>{click}")
    body = visit(other, tmp_path).html.partition("<tbody>")[2].partition("</tbody>")[0]
    assert re.findall('data-value="(.*?)"', body) == ["", "10", "9", "2"]


def test_most_wrong_and_least_sure_share_no_image() -> None:
    _, scores = samples_and_scores(CLASSES)
    most_wrong, least_sure = choose(scores)
    assert most_wrong == [11, 10, 9, 7, 6, 5, 3, 2]  # the wrong ones by their loss
    assert least_sure == [0, 1, 4, 8]  # of the twelve least sure, those that are not among them
    assert choose(replace(scores, logits=None)) == (most_wrong, [])


def test_without_confidences_and_errors_the_page_says_so(network: Network, tmp_path: Path) -> None:
    finished_run(tmp_path, CLASSES)
    samples, _ = samples_and_scores(CLASSES)
    labels = [i % 4 for i in range(12)]
    html = write_report(tmp_path, network, samples, scores_of(labels, labels, 4)).read_text()
    assert "Every validation image is right." in html
    assert "Not known: the best epoch is of a version" in html
    Seen(html)


def test_a_phase_that_no_time_was_left_for_is_not_laid_to_the_gate(tmp_path: Path) -> None:
    skipped = {"name": "last", "epochs": 0, "verdict": "skipped"}
    finished_run(tmp_path, CLASSES, phases=[{"name": "head", "epochs": 1, "verdict": "kept"}, skipped])
    head, last = Facts.read(tmp_path).phase_rows()
    assert (head["why"], last["why"]) == (None, "Not begun: train.max_minutes left no time.")
    phases = [{"name": "head", "epochs": 1, "verdict": "dropped"}, skipped]
    for on_dropped, why in (
        ("continue", "train.max_minutes left no time"),
        ("stop", "the gate dropped a phase before"),
    ):
        finished_run(tmp_path, CLASSES, phases=phases)
        identity = json.loads((tmp_path / "run.json").read_text())
        identity["config"]["stage"] = {"on_dropped": on_dropped}
        (tmp_path / "run.json").write_text(json.dumps(identity))
        assert Facts.read(tmp_path).phase_rows()[1]["why"].startswith(f"Not begun: {why}")


def test_commands_name_the_data_and_the_network_of_the_run(tmp_path: Path) -> None:
    finished_run(tmp_path, CLASSES)
    identity = json.loads((tmp_path / "run.json").read_text())
    of_the_run = ["experiment=vit_small_data", "+data=imagefolder", "data.root=a b"]
    (tmp_path / "run.json").write_text(
        json.dumps({**identity, "overrides": [*of_the_run, "stage=partial", "model.weights=old.pt"]})
    )
    commands = dict(Facts.read(tmp_path).commands())
    same = "experiment=vit_small_data +data=imagefolder 'data.root=a b'"
    assert commands["Run it again"] == f"python -m ftexp {same} stage=partial model.weights=old.pt"
    trained_on = f"python -m ftexp {same} model.weights={tmp_path}/checkpoints/best.pt stage=full"
    assert commands["Train on from its weights"] == trained_on
    (tmp_path / "run.json").write_text(json.dumps({**identity, "overrides": None}))
    unknown = dict(Facts.read(tmp_path).commands())
    assert commands.keys() - unknown.keys() == {"Run it again", "Labels that look wrong", "Train on from its weights"}


def test_a_hundred_classes_have_all_their_names(tmp_path: Path, network: Network) -> None:
    classes = [f"class {i:03d}" for i in range(100)]
    finished_run(tmp_path, classes)
    network.module.fc = torch.nn.Linear(6, 100)
    network.module.eval()
    samples, scores = samples_and_scores(classes, 400)
    html = write_report(tmp_path, network, samples, scores).read_text()
    seen = Seen(html)
    assert all(seen.text.count(name) >= 2 for name in classes)
    assert len(html) < 1_500_000


def test_a_run_without_a_result_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"of a run that has finished, and there is no result\.json in it"):
        Facts.read(tmp_path)
    (tmp_path / "result.json").write_text('{"status": "failed", "error": "x"}')
    with pytest.raises(CheckpointError, match="of a run that has finished, and it ended as failed"):
        Facts.read(tmp_path)


def test_images_are_counted_by_split_and_class(tmp_path: Path) -> None:
    classes = ["ant", "bee"]
    finished_run(tmp_path, classes)
    rows = [("a", "ant", "train"), ("b", "ant", "train"), ("c", "bee", "train"), ("d", "bee", "val")]
    write_csv(tmp_path / "splits.csv", [dict(zip(("path", "label", "split"), row, strict=True)) for row in rows])
    facts = Facts.read(tmp_path)
    assert [(row["split"], row["images"], row["commonest"], row["rarest"]) for row in facts.split_rows()] == [
        ("train", 3, ("ant", 2), ("bee", 1)),
        ("val", 1, ("bee", 1), ("bee", 1)),
        ("test", 0, None, None),
    ]
    _, scores = samples_and_scores(classes)
    assert {row["class"]: row["train"] for row in facts.class_rows(scores)} == {"ant": 2, "bee": 1}
