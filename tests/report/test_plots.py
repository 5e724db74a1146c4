import warnings
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ftexp.evaluation.history import EpochRecord
from ftexp.report.page.charts import curves
from ftexp.report.plots import label_plainly, plot_confusion_matrix, plot_curves


def record(epoch, phase="partial", *, best=False, lr_head=1e-3, lr_backbone=3e-4, val_loss=0.5):
    return EpochRecord(
        phase=phase,
        epoch=epoch,
        train_loss=1.0 / epoch,
        val_loss=val_loss,
        val={"accuracy": 0.9, "macro_f1": 0.85, "auroc": 0.95, "log_loss": 0.5},
        grad_norm=1.0,
        head_change=0.1,
        lr_head=lr_head,
        lr_backbone=lr_backbone,
        images_per_second=100.0,
        seconds=1.0,
        best=best,
    )


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, for a look at what is in them."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: (figures.append(self), save(self, *args, **kw))[1])
    return figures


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_curves_show_phases_and_the_best_epoch(tmp_path, drawn):
    history = [record(1, "head", lr_backbone=None, best=True), record(2, "head", lr_backbone=None)]
    history += [record(3, best=True), record(4)]
    plot_curves(history, tmp_path / "curves.png", best_epoch=3)
    losses, scores, rates = drawn[0].axes
    assert texts(losses) == ["head", "partial"]
    assert [text.get_text() for text in scores.get_legend().get_texts()] == ["accuracy", "macro F1", "best epoch, 3"]
    assert rates.get_yscale() == "log"
    assert rates.yaxis.get_major_formatter()(1e-3) == "1e\N{MINUS SIGN}03"  # not a formula, which takes time to parse
    assert drawn[0].get_layout_engine() is None  # which would take as long as all else
    head, backbone, *_ = rates.get_lines()
    # A gap between the phases: each has a schedule of its own.
    np.testing.assert_array_equal(head.get_xdata(), [1, 2, 2.5, 3, 4])
    np.testing.assert_array_equal(head.get_ydata(), [1e-3, 1e-3, np.nan, 1e-3, 1e-3])
    np.testing.assert_array_equal(backbone.get_ydata(), [np.nan, np.nan, np.nan, 3e-4, 3e-4])
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 800


@pytest.mark.parametrize(
    "history",
    [
        [record(1, best=True)],
        [record(1, lr_backbone=None)],
        [record(1, val_loss=float("nan")), record(2, val_loss=float("inf"))],
        [record(1, best=True), record(2, lr_head=0.0, lr_backbone=0.0)],  # the end of a cosine
        [record(1, lr_head=0.0, lr_backbone=0.0)],
    ],
    ids=["one epoch", "no backbone rate", "not finite", "ends at zero", "zero alone"],
)
def test_curves_of_unusual_runs_are_drawn_without_a_warning(tmp_path, history):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_curves(history, tmp_path / "curves.png", best_epoch=1)
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_the_scores_of_one_epoch_are_written_in_full_and_a_solved_head_has_no_rate(tmp_path, drawn):
    solved = replace(record(1, lr_head=0.0, lr_backbone=None), val={"accuracy": 0.975845, "macro_f1": 0.975843})
    plot_curves([solved], tmp_path / "curves.png", best_epoch=1)
    assert [text for _, text in curves([solved], "accuracy", 1)[1].y_ticks][1:3] == ["0.9725", "0.975"]
    _, scores, rates = drawn[0].axes
    assert scores.yaxis.get_offset_text().get_text() == ""
    assert np.ptp(scores.get_ylim()) == pytest.approx(0.01)
    assert [label.get_text() for label in rates.get_yticklabels()] == ["0"]


def test_all_numbers_of_a_log_axis_are_written_in_one_way():
    axes = Figure().subplots()
    axes.plot([1e-2, 1e4], [1, 1])
    axes.set_xscale("log")
    label_plainly(axes.xaxis)
    written = [axes.xaxis.get_major_formatter()(x).replace("\N{MINUS SIGN}", "-") for x in (1e-2, 0.1, 1, 10, 1e4)]
    assert written == ["1e-02", "1e-01", "1e+00", "1e+01", "1e+04"]


def test_confusion_of_few_classes_shows_counts_and_row_shares(tmp_path, drawn):
    confusion = np.array([[8, 2, 0], [0, 5, 0], [0, 0, 0]])
    plot_confusion_matrix(confusion, ["ants", "b$e$es", "none"], tmp_path / "confusion.png", "test")
    axes = drawn[0].axes[0]
    assert texts(axes) == ["8", "2", "5"]
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ants", "b$e$es", "none"]
    assert axes.get_title() == "test: 13 of 15 right"


def test_confusion_of_many_classes_names_some_and_shows_no_counts(tmp_path, drawn):
    classes = [f"species number {i} with a long name" for i in range(200)]
    plot_confusion_matrix(np.eye(200, dtype=np.int64), classes, tmp_path / "confusion.png", "test")
    axes = drawn[0].axes[0]
    assert texts(axes) == []
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == 50
    assert labels[1] == "species number 4 with a…"


def test_class_names_of_any_script_give_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_confusion_matrix(np.eye(2, dtype=np.int64), ["蚂蚁\n", "$\\frac"], tmp_path / "confusion.png", "test")
    assert (tmp_path / "confusion.png").stat().st_size > 5_000


def test_the_page_draws_learning_rates_only_where_there_are_any():
    solved = record(1, "head", lr_head=0.0, lr_backbone=None)
    assert [chart.title for chart in curves([solved], "accuracy", 1)] == ["Loss", "Validation scores"]
    assert [chart.title for chart in curves([solved, record(2)], "accuracy", 2)][2:] == ["Learning rate"]
