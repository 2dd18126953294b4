from pathlib import Path

import pytest

from codec.training.recipe import RecipeError, Stage, find_recipe, read_recipe, recipe_names
from codec.training.schedule import learning_rate


@pytest.mark.parametrize("name", recipe_names())
def test_every_included_recipe_gives_a_network(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.name == name
    assert recipe.config.levels == (1 if recipe.network.separate else len(recipe.rate.targets))


def test_the_papers_numbers() -> None:
    recipe = find_recipe("po-dkic")
    assert [stage.adversarial for stage in recipe.stages] == [False, True]
    assert recipe.stages[0].steps * 4 == recipe.stages[1].steps  # 20 epochs, then 80
    assert recipe.stages[0].rate_factor > recipe.stages[1].rate_factor
    assert (recipe.data.batch, recipe.data.crop, recipe.optimizer.name) == (16, 256, "adam")
    rates = [learning_rate(recipe.stages[1], step) for step in (0, 174_999, 175_000, 262_500, 349_999)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-6, 1e-6])
    dkic = find_recipe("dkic")
    assert len(dkic.rate.targets) == 7
    assert dkic.rate.above == pytest.approx(
        [1 / (255**2 * x) for x in (0.0035, 0.0067, 0.013, 0.025, 0.0483, 0.0932, 0.18)], rel=1e-3
    )


def test_schedules() -> None:
    cosine = Stage(steps=100, learning_rate=1.0, final_learning_rate=0.0, schedule="cosine", warmup=10)
    assert learning_rate(cosine, 0) == pytest.approx(0.1)
    assert learning_rate(cosine, 50) == pytest.approx(0.5)
    assert learning_rate(cosine, 99) < 0.01


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stages = [", "not a valid TOML file"),
        ("", "no steps"),
        ("[[stages]]\nsteps = 1\nspeed = 2", "no field speed in stage"),
        ("colour = 1\n[[stages]]\nsteps = 1", "no field colour in recipe"),
        ("[rate]\ntargets = [0.1, 0.2]\n[[stages]]\nsteps = 1", "two prices for each level"),
        ("[rate]\ntargets = [0.2, 0.1]\nabove = [1, 1]\nbelow = [1, 1]\n[[stages]]\nsteps = 1", "increasing order"),
        ('[[stages]]\nsteps = 1\nschedule = "linear"', "unknown schedule"),
        ("format = 2", "has format 2, but this version reads format 1"),
        ('[optimizer]\nname = "sgd"\n[[stages]]\nsteps = 1', "unknown optimizer"),
        ('[optimizer]\ndiscriminator = "muon"\n[[stages]]\nsteps = 1', "unknown optimizer"),
        ("[[stages]]\nsteps = 1.5", "steps in stage can't be 1.5"),
        ("[[stages]]\nsteps = 1\ndrops = 0.5", "drops in stage can't be 0.5"),
        ("[[stages]]\nsteps = 1\n[[stages]]\nsteps = 1\nbatch = 0", "batches of at least 1"),
        ("[data]\ncrop = 8\n[[stages]]\nsteps = 1", "crops of at least 32 pixels"),
        ('[rate]\ntargets = ["a"]\n[[stages]]\nsteps = 1', "targets in rate can't be"),
        ("level = true\n[[stages]]\nsteps = 1", "level in recipe can't be True"),
        ("seed = -1\n[[stages]]\nsteps = 1", "negative seed"),
        ("[optimizer]\naverage = 1.0\n[[stages]]\nsteps = 1", "from 0 to less than 1"),
    ],
)
def test_an_invalid_recipe_gives_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=says):
        read_recipe(path)


def test_a_missing_recipe_and_an_impossible_network(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="can't be read"):
        find_recipe(str(tmp_path / "nothing.toml"))
    path = tmp_path / "mine.toml"
    path.write_text("[network.changes]\nlatent = 7\n[[stages]]\nsteps = 1")
    with pytest.raises(RecipeError, match="has an invalid network"):
        _ = read_recipe(path).config
