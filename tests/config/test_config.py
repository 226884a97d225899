"""The configuration: sections, flat form, presets, files and flags all come from one definition."""

import json

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from poolwise.cli.flags import SectionedCommand, chosen, request_options, requested
from poolwise.config import AUTO, PRESETS, Config, load_config, preset, settings
from poolwise.errors import RequestError

SECTIONS = [name for name in Config.model_fields if name not in ("preset", "seed")]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip(name):
    config = preset(name)
    assert Config.from_flat(json.loads(json.dumps(config.to_flat()))) == config


def test_overrides_win_and_epochs_replace_the_presets_steps():
    assert preset("demo", supernets=7, lr=None).search.supernets == 7
    assert preset("demo", epochs=3).search.steps is None
    assert preset("demo", epochs=3, steps=9).search.steps == 9
    assert preset("demo", retrain_epochs=3).retrain.steps is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"supernets": 0}, {"supernets": -1}, {"steps": 0}, {"batch_size": 1}, {"lr_end": 1.0}, {"eval_batch_size": 1},
        {"lr": 0.0}, {"lr": float("nan")}, {"seed": -1}, {"latency_batch": 0}, {"latency_batch": "many"}, {"max_seeds": "x"},
        {"images": 0}, {"width": 0}, {"temperature": -1.0}, {"temperature": float("inf")}, {"draw": "round"}, {"epochs": 1.5},
        {"supernet": 3}, {"warm_up": 1.0}, {"warm_up": -0.1}, {"warm_up": "half"}, {"only": "5-3-2"}, {"poolings": [2, 2]},
        {"augment": "flip"}, {"stream": "yes"}, {"stream": "on", "cache_images": False}, {"flip": 1}, {"model": "a\0b"},
        {"weights_for": "search"}, {"until_decided": True, "retrain_seeds": 1}, {"norm": "recalibrated", "compile": "default"},
    ],
)  # fmt: skip
def test_wrong_values_are_rejected_by_name(wrong):
    with pytest.raises(RequestError) as error:
        preset("demo", **wrong)
    message = str(error.value)
    assert next(iter(wrong)) in message
    assert "\n" not in message


@given(
    st.sampled_from(sorted(settings())),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
)
def test_any_value_is_accepted_or_rejected_in_one_line(name, value):
    message = ""
    try:
        config = Config.from_flat({name: value})
    except RequestError as error:
        message = str(error)
    assert "\n" not in message
    assert message or Config.from_flat(config.to_flat()) == config


def test_unknown_names_are_rejected_with_a_suggestion():
    with pytest.raises(RequestError, match="did you mean 'paper'"):
        preset("papers")
    with pytest.raises(RequestError, match="did you mean 'supernets'"):
        preset("demo", supernet=2)


def test_presets_leave_the_number_of_supernets_open():
    demo = preset("demo")
    assert (demo.search.method, demo.search.supernets, demo.search.norm, demo.search.proxy) == (
        "mixture",
        None,
        "affine",
        0,
    )
    others = [preset("demo", norm="recalibrated"), preset("demo", method="partition-first")]
    assert (demo.ranking.rank_on, *[other.ranking.rank_on for other in others]) == ("all", "assigned", "assigned")
    assert preset("demo", supernets=AUTO).search.supernets is None
    assert preset("demo", supernets=3).search.supernets == 3
    assert preset("default", supernets=5, method="unbalanced").search.method == "unbalanced"
    assert (preset("paper").search.supernets, preset("paper").search.proxy) == (4, 0)
    assert preset("default").search.proxy is preset("demo", short=AUTO).search.proxy is None
    others = preset("demo", model="timm:resnet26d")
    assert (others.search.norm, others.model.width) == ("batch", None)


def test_a_change_is_checked_against_everything_else():
    config = preset("paper")
    assert config.replace(lr=0.5).training.lr == 0.5
    with pytest.raises(RequestError, match="lr_end"):
        config.replace(lr=0.0001)


def test_a_toml_file_is_read_by_section_and_flags_override_it(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('preset = "demo"\nseed = 4\n[search]\nsteps = 30\nsupernets = "auto"\n[retrain]\nseeds = 2\n')
    config = load_config(file, steps=40)
    assert (config.preset, config.seed, config.search.steps, config.retrain.seeds) == ("demo", 4, 40, 2)
    assert config.search.supernets is None
    assert load_config(file, preset="paper").training.batch_size == 128


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[serach]\nsteps = 1", "did you mean 'search'"),
        ("[search]\nstep = 1", "did you mean 'steps'"),
        ("seeds = 1", "before the first section"),
        ("[search]\nsteps = 0", "steps is 0"),
        ("[search\n", "not TOML"),
        ('preset = "x"', "unknown preset"),
    ],
)
def test_a_wrong_toml_file_is_rejected_in_one_line(tmp_path, text, message):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(RequestError, match=message) as error:
        load_config(file)
    assert "\n" not in str(error.value)


def test_the_request_of_a_run_folder_is_a_config(tmp_path):
    config = preset("demo", seed=9, only=["5-3-2"])
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "settings": config.to_flat()}))
    assert load_config(tmp_path) == load_config(tmp_path / "run.json") == config
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(RequestError, match="contains no settings"):
        load_config(tmp_path)


@click.command(cls=SectionedCommand)
@request_options(*SECTIONS)
@click.option("--quiet", is_flag=True)
def command(quiet, **values):
    config = requested(values)
    click.echo(json.dumps({"config": config.to_flat(), "left": values}))


def call(*arguments):
    done = CliRunner().invoke(command, list(arguments), catch_exceptions=True)
    return done if done.exception is None else done.exception


@pytest.mark.parametrize("name", [name for name in settings() if name not in ("preset", "seed")])
def test_every_setting_has_a_flag_in_every_form(name):
    setting, base = settings()[name], ["--weights", "x"] if name == "weights_for" else []
    flag = f"--{name.replace('_', '-')}"
    if bool in setting.kinds:
        off = f"--{setting.off_flag or 'no-' + name.replace('_', '-')}"
        assert json.loads(call(flag).output)["config"][name] is True
        assert json.loads(call(off).output)["config"][name] is False
        return
    value = (
        setting.choices[-1] if setting.choices else {int: "3", float: "0.02", str: "text"}.get(setting.kinds[0], "2,3")
    )
    value = "5-3-2,4-3-3" if name == "only" else value
    parsed = json.loads(call(flag, value, *base).output)["config"][name]
    expected = value.split(",") if isinstance(parsed, list) else type(parsed)(value)
    assert [str(part) for part in parsed] == expected if isinstance(parsed, list) else parsed == expected


def test_wrong_flags_are_rejected_by_name():
    for arguments, message in (
        (["--steps", "x"], "--steps 'x': use an integer of at least 1"),
        (["--supernets", "some"], "--supernets 'some': use auto or an integer"),
        (["--poolings", "5-3-2"], "--poolings '5-3-2': use a list of integers of at least 0, like 2,3"),
        (["--lr", "-1"], "lr is -1.0: use a finite number above 0"),
    ):
        error = call(*arguments)
        assert isinstance(error, RequestError)
        assert message in str(error)


def test_help_lists_every_flag_under_its_section():
    text = call("--help").output
    headings = [line.rstrip(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert [heading.split(" (")[0] for heading in headings] == [
        "Request", *[name.capitalize() for name in SECTIONS], "Options",
    ]  # fmt: skip
    assert next(heading for heading in headings if heading.startswith("Refine")).endswith("not part of poolwise run)")
    for name in settings():
        assert f"--{name.replace('_', '-')}" in text


def test_help_shows_the_value_of_every_preset_or_the_one_default():
    rows = {one.opts[0].removeprefix("--"): one.help.partition("  [")[2] for one in command.params if one.help}
    assert rows["short"] == "presets: default auto, demo 0, paper 0]"
    assert rows["fusion"] == "presets: default auto, demo auto, paper off]"
    assert rows["epochs"] == "presets: default 200, demo --steps 2160, paper 200]"
    assert rows["batch-size"] == "presets: default 128, demo 64, paper 128]"
    assert rows["momentum"] == "default: 0.9]"
    assert rows["equal-cost"] == rows["skip-broken"] == "default: off]"
    for name, one in settings().items():
        values = {str(preset(words).get(name)) for words in PRESETS} if name != "preset" else {""}
        row = rows.get(name.replace("_", "-"), "")
        if len(values) > 1:
            assert row.startswith("presets: "), name
        elif bool in one.kinds:
            assert row.startswith("default: "), name


def test_help_lists_every_method_and_refiner():
    from poolwise.selection.strategies import STRATEGIES
    from poolwise.supernets import samplers

    words = {name: settings()[name].help.replace(",", " ").replace(".", " ").split() for name in ("method", "refiner")}
    assert {one.name for one in samplers.available()} - {word.rstrip(":") for word in words["method"]} == set()
    assert set(STRATEGIES.all()) - {word.rstrip(":") for word in words["refiner"]} == set()


def test_single_settings_and_sections_can_be_chosen():
    assert [setting.name for setting in chosen("refine", "retrain_epochs")] == [
        "trials",
        "refiner",
        "hints",
        "at_once",
        "retrain_epochs",
    ]


def test_the_json_schema_names_every_section():
    schema = Config.model_json_schema()
    assert set(SECTIONS) <= set(schema["properties"])
    assert schema["$defs"]["Search"]["properties"]["epochs"]["minimum"] == 1
