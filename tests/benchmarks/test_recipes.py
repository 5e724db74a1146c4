"""benchmarks.recipes: differences are taken in pairs, and a recipe that fails leaves its cell out."""

from __future__ import annotations

from conftest import Compose

from benchmarks.recipes import RECIPES, rows_of


def test_every_recipe_composes(configure: Compose) -> None:
    for settings in RECIPES.values():
        configure(*settings)


def test_more_updates_are_multiples_of_the_default(configure: Compose) -> None:
    default = configure().recipe.budgets.cnn.all
    for times, name in ((2, "auto, all: twice the updates"), (4, "auto, all: four times the updates")):
        budget = configure(*RECIPES[name]).recipe.budgets.cnn.all
        assert (budget.updates, budget.max_epochs) == (times * default.updates, times * default.max_epochs)


def test_rows_are_paired_with_the_first_recipe() -> None:
    first, second, *_ = RECIPES
    cells = [
        {"recipe": recipe, "set": name, "seed": seed, "val": val, "test": test, "seconds": 1.0}
        for recipe, name, seed, val, test in (
            (first, "a", 0, 0.80, 0.70),
            (first, "b", 0, 0.90, 0.90),
            (second, "a", 0, 0.83, 0.71),
            (second, "b", 0, 0.91, 0.87),
            (second, "a", 1, 0.10, 0.10),  # the first recipe has no cell with this seed
        )
    ]
    cells.append({"recipe": first, "set": "a", "seed": 1, "error": "out of memory"})
    rows = list(rows_of(cells))
    assert [(row["recipe"], row["n"]) for row in rows] == [(first, 2), (second, 2)]
    assert rows[1]["val, points more"] == "+2.00 ± 1.00"
    assert rows[1]["test, points more"] == "-1.00 ± 2.00"
    assert (rows[1]["a"], rows[1]["b"]) == ("+3.0 / +1.0", "+1.0 / -3.0")
