"""Every YAML file of conf/ composes into checked settings; wrong settings are refused by name."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from requant import assembly
from requant.config import Config
from requant.errors import ConfigError, UserError
from requant.plan import Rule
from requant.runs import run_folder, settings_hash
from requant.settings import all_keys, all_settings, parse, register, result_settings, settings_of_file

CONF = Path(__file__).parents[2] / "conf"
OPTIONS = sorted(
    (str(path.parent.relative_to(CONF)), path.stem)
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF and "hydra" not in path.parts
)


def settings(*overrides: str) -> Config:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return parse(compose("config", list(overrides)))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_file_composes(group: str, option: str) -> None:
    composed = settings(f"{group}={option}")
    for position, rule in enumerate(composed.plan.rules, start=1):
        Rule.from_mapping(rule, position)


@pytest.mark.parametrize("experiment", sorted(option for group, option in OPTIONS if group == "experiment"))
def test_an_experiments_learning_rate_is_not_another_retrainings(experiment: str) -> None:
    chosen = settings("retrain=codebook").retrain
    found = settings(f"experiment={experiment}", "retrain=codebook").retrain
    assert (found.optimizer, found.learning_rate) == (chosen.optimizer, chosen.learning_rate)


def test_a_file_tells_what_made_it_and_no_path(tmp_path: Path) -> None:
    found = settings_of_file(
        settings("centroids=16", "clustering=kmeans", "plan=weights", f"unlabeled.root={tmp_path}")
    )
    assert found["centroids"] == found["plan.rules"][0]["centroids"] == 16
    assert found["unlabeled.name"] == "digits"
    assert not [key for key in found if key.startswith("clustering")]  # kmeans is the default of config.py
    assert str(tmp_path) not in json.dumps(found)
    automatic = settings_of_file(settings("plan=auto", "target.size_mb=0.5", "clustering=linear", "seed=3"))
    assert (automatic["plan.method"], automatic["target.size_mb"], automatic["seed"]) == ("auto", 0.5, 3)
    assert not [key for key in automatic if key.startswith(("clustering", "centroids"))]


def test_a_file_tells_what_it_ran_on_and_what_the_outputs_are(tmp_path: Path) -> None:
    made = settings(
        *("trainer.precision=bf16-mixed", "trainer.devices=2", "trainer.threads=1", "model.outputs=sigmoid"),
        *(f"model.weights={tmp_path}/x.safetensors", "model.mean=[0.5]", "model.std=[0.2]", "data=none"),
    )
    found = {key: value for key, value in settings_of_file(made).items() if key.startswith(("trainer", "model"))}
    assert found.pop("model.quantize")
    assert found == {
        "trainer.precision": "bf16-mixed",
        "trainer.devices": 2,
        "model.outputs": "sigmoid",
        "model.mean": [0.5],
        "model.std": [0.2],
    }


def test_an_automatic_plan_is_stored_by_entropy_coding() -> None:
    assert settings("plan=auto", "storage=gzip").storage.method == "entropy"
    assert settings("plan=auto", "target.size_mb=0.5").target.reduction == 0.9  # the size comes first


def test_every_group_has_a_header() -> None:
    for group, option in OPTIONS:
        first = (CONF / group / f"{option}.yaml").read_text().splitlines()[0]
        assert first.startswith("# "), f"{group}/{option}.yaml must open with what it is"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("centroids=0", "1 to 4096"),
        ("centroids=4097", "1 to 4096"),
        ("centroids=eight", "1 to 4096"),
        ("retrain.loss=huber", "kl, mse, ce"),
        ("retrain.epochs=0", "above 0"),
        ("retrain.optimizer=lion", "sgd, adam, adamw"),
        ("retrain.warmup=1.5", r"\[0, 1\)"),
        ("unlabeled.crops=-1", "above 0"),
        ("unlabeled.scale=[0.5]", "two numbers"),
        ("data.limit=0", "above 0"),
        ("task=quantise", "compress, teacher"),
        ("baseline.method=proposed", "conventional or none"),
        ("logger.mode=on", "offline"),
        ("retrain.learning_rate=nan", "finite"),
        ("retrain.weight_decay=-1", "0 or above"),
        ("retrain.momentum=1", r"\[0, 1\)"),
        ("teacher.label_smoothing=3", r"\[0, 1\)"),
        ("trainer.accelerator=tpu", "cpu, gpu, auto"),
        ("trainer.devices=0", "above 0"),
        ("trainer.precision=fp8", "bf16-mixed"),
        ("trainer.strategy=dpp", "auto, ddp"),
        ("trainer.threads=-1", "above 0"),
        ("task=teacher model.weights=none", "set it to trained"),
        ("plan.method=automatic", "rules, auto"),
        ("plan=auto target.reduction=null", r"set target\.size_mb"),
        ("plan=auto target.reduction=1.5", "between 0 and 1"),
        ("plan=auto target.size_mb=0", "above 0"),
        ("plan=auto target.max_drop=2", "one image in a hundred"),
        ("plan=auto target.max_drop=0.1 target.size_mb=1", "one of them decides"),
        ("plan=auto storage.method=packed", "storage=entropy"),
        ("plan=auto plan.rules=[{kind:weight,centroids:4}]", "by itself"),
        ("plan=auto trainer.devices=2", "one process"),
        ("retrain=reconstruct retrain.images=0", "above 0"),
        ("retrain=reconstruct retrain.damping=0", "above 0"),
        ("retrain=reconstruct retrain.dreams=-1", "0 or above"),
        ("retrain=reconstruct retrain.dreams=9 data=none model.outputs=values", "of classes"),
        ("baseline.method=reconstruct", "conventional or none"),
        ("baseline.method=codebook baseline.optimizer=adam", "set retrain=codebook"),
        ("retrain=codebook retrain.optimizer=sgd", "adam or adamw"),
        ("retrain=codebook retrain.centroid_rate=0", "above 0"),
        ("retrain=codebook retrain.latent_rate=-1", "0 or above"),
        ("retrain=codebook retrain.start=rounded", "cluster, reconstruct"),
        ("retrain=conventional retrain.start=reconstruct", "for retrain=proposed and codebook"),
        ("plan=auto retrain=codebook retrain.latent_rate=0", r"latent_rate above 0"),
        ("clustering.split=1.5", "from 0 to 1"),
        ("target.size_mb=0.02", "is what plan=auto aims at"),
        ("target.max_drop=0.01", "set plan=auto"),
        ("plan.rules=[]", "nothing would be clustered"),
        ("retrain.epochs=-1", r"^retrain\.epochs=-1: "),
        ("baseline.momentum=2", r"^baseline\.momentum=2\.0: "),
        ("teacher.momentum=2", r"^teacher\.momentum=2\.0: "),
        ("baseline.statistics=foo", r"^baseline\.statistics=foo: "),
        ("retrain.augment=rotate", r"^retrain\.augment=rotate: .* flip_shift"),
        ("unlabeled.scale=[0.9,0.1]", "least <= greatest"),
        ("unlabeled.scale=[0,1]", "shares of the area"),
        ("model.channels=2", "1 .grey. or 3"),
        ("model.outputs=argmax", "softmax, sigmoid, values"),
        ("model.outputs=values", "set data=none"),
        ("model.outputs=sigmoid data=none retrain.loss=mse", "is for model.outputs=softmax, not sigmoid"),
        ("model.outputs=values data=none retrain.temperature=2", "is for model.outputs=softmax, not values"),
        ("data.workers=-1", "0 .the main process. or above"),
        ("task=sensitivity sensitivity.layers=[]", r"sensitivity\.layers=\[\]"),
        ("task=sensitivity sensitivity.kinds=[]", "give one at least"),
        ("task=sensitivity sensitivity.centroids=[]", "give one at least"),
        ("task=sensitivity trainer.devices=2", "task=sensitivity works in one process"),
        ("task=teacher trainer.num_nodes=2", "task=teacher works in one process"),
    ],
)
def test_wrong_values_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(*override.split())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("clustering.granularity=chanel", "tensor, channel, channel_scale"),
        ("clustering=product clustering.granularity=channel", "leave granularity=channel out"),
        ("clustering=kmeans clustering.block=3", "is for clustering=product"),
        ("plan.rules=[{kind:weight,centroids:5000}]", "from 1 to 4096"),
        ("plan.rules=[{kind:weight,centroids:4,block:0}]", "from 1, not 0"),
        ("plan.rules=[{kind:weight,centroids:4,split:2}]", "from 0 to 1, not 2"),
        ('plan.rules=[{kind:weight,centroids:4,granularity:"group:x"}]', "granularity must be"),
        ("clustering=kmeans clustering.granularity=channel retrain=reconstruct", "centroids of one table"),
        ("clustering=product retrain=reconstruct", "has method=product"),
        ("clustering.split=0.1 retrain=reconstruct", "has split"),
        (
            "clustering.granularity=channel retrain.start=reconstruct",
            r"^retrain\.start=reconstruct chooses .* set retrain\.start=cluster",
        ),
        ("clustering=product retrain=codebook", r"^retrain=codebook chooses .* set retrain=proposed"),
        ("clustering=entropy clustering.bits=9 centroids=4", "4 centroids .* give up to 2"),
    ],
)
def test_forms_of_codebooks_that_cannot_be_are_refused_before_any_work(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        assembly.check(settings(*override.split()))


def test_what_cannot_change_a_result_stays_out_of_the_hash() -> None:
    plain = result_settings(settings())
    for override in ("data.workers=3", "trainer.threads=2", "logger=wandb", "out=elsewhere", "force=true", "name=x"):
        assert result_settings(settings(override)) == plain, override
    for override in ("seed=1", "centroids=5", "retrain.epochs=1", "unlabeled.crops=7", "plan=weights"):
        assert result_settings(settings(override)) != plain, override


def test_every_key_is_a_setting() -> None:
    whole = all_settings(settings())
    for key in set(all_keys()) - {"experiment"}:
        node = whole
        for part in key.split("."):
            node = node[part]


def test_a_sweep_over_many_processes_is_refused() -> None:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["trainer=ddp_cpu"])
    assert parse(config).trainer.devices == 2
    with pytest.raises(ConfigError, match="sweep"):
        parse(config, in_sweep=True)


def test_what_plan_auto_does_not_read_does_not_tell_its_runs_apart() -> None:
    plain = settings_hash(settings("plan=auto"))
    assert settings_hash(settings("plan=auto", "centroids=4", "clustering=linear")) == plain
    assert settings_hash(settings("plan=auto", "target.reduction=0.8")) != plain
    assert settings_hash(settings("centroids=4")) != settings_hash(settings("centroids=5"))


def test_folders_may_be_named_from_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_folder(settings("out='~/runs'")).is_relative_to(tmp_path / "runs")
