"""The settings of a run, documented and checked: what conf/*.yaml is composed into."""

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from requant.errors import ConfigError
from requant.kinds import KINDS
from requant.limits import MAX_CENTROIDS
from requant.recipe import Recipe, choice, fraction, positive

OUTPUTS = ("softmax", "sigmoid", "values")


def _aside(default: Any) -> Any:
    """Mark a setting that cannot change a run's result: it stays out of the settings hash."""
    return field(default=default, metadata={"aside": True})


@dataclass
class ModelConfig:
    """The network to compress."""

    name: str = MISSING
    """vgg16, resnet50, vgg16_cifar, resnet50_cifar, resnet50_cifar_s2, efficientnet_lite0 to 4, vgg_small,
    torchvision:<name>, timm:<name>, huggingface:<folder> (or huggingface:<owner>/<network>), own:<file.py>:<function>
    (or own:<package.module>:<function>)."""
    classes: int = 1000
    channels: int = 3
    """1 (grey) or 3 (RGB)."""
    image_size: int = 224
    """Height and width of the network's input, pixels."""
    width: float = 1.0
    """Factor on the channel counts (CIFAR forms and vgg_small)."""
    mean: list[float] | None = None
    """Of its training images' channels, from 0 to 1; null: the published weights' (CIFAR forms: CIFAR-10's)."""
    std: list[float] | None = None
    """The standard deviations that go with it."""
    outputs: str = "softmax"
    """What its outputs are: softmax (scores of classes, of which one is right), sigmoid (of things that are there or
    not) or values (embeddings, depths, pixels); of an image, or of each position of one."""
    weights: str = "none"
    """published or imagenet (what comes with the network), trained (by `teacher`'s recipe on `data`, on first use),
    none (random), or a file."""
    quantize: str = ""
    """The layers whose weights the plans `layers` and `paper` cluster, e.g. 14-15."""

    def __post_init__(self) -> None:
        positive(**{"model.classes": self.classes, "model.image_size": self.image_size, "model.width": self.width})
        if self.channels not in (1, 3):
            raise ConfigError(f"model.channels={self.channels}: choose 1 (grey) or 3 (RGB)")
        choice("model.outputs", self.outputs, OUTPUTS)


@dataclass
class TeacherConfig(Recipe):
    """How the teacher is trained where model.weights=trained."""

    augment: str = "none"
    """Of the training images: none, shift, flip_shift."""
    label_smoothing: float = 0.0
    batch_norm: bool = False
    """Train with a batch norm behind each layer and fold it into the weights at the end: for networks without."""
    seed: int = 0
    keep: str | None = _aside(None)
    """task=teacher: copy the teacher to this .safetensors file too, in half precision where its accuracy stays."""

    def check(self, of: str = "teacher.") -> None:
        """Raise ConfigError for what cannot be."""
        super().check(of)
        choice(f"{of}augment", self.augment, ("none", "shift", "flip_shift"))
        fraction(f"{of}label_smoothing", self.label_smoothing)


@dataclass
class RetrainConfig(Recipe):
    """How the quantized network is retrained."""

    method: str = "proposed"
    """proposed (match the teacher on unlabeled images), codebook (the same, and codebooks are trained too), reconstruct
    (layer by layer, by choosing other centroids, on unlabeled images), conventional (labels), none."""
    images: int = 128
    """reconstruct (as method or start): how many unlabeled images it looks at."""
    damping: float | None = None
    """reconstruct: how little the images are trusted where they say little, in parts of the inputs' mean second moment;
    null: 0.01, 0.1 or 1, by KL on a quarter of the images held out, which takes up to three times as long again."""
    dreams: int = 0
    """reconstruct: how many images it looks at beside those, each changed to what the network takes for a class that is
    drawn; for networks of many classes of which the unlabeled images show few."""
    start: str = "cluster"
    """proposed and codebook: train from the clusters as they are (cluster), or from what retrain=reconstruct makes of
    them, on `images` images (reconstruct)."""
    centroid_rate: float = 0.01
    """codebook: the highest rate of centroids, in the distance between neighbouring centroids of a tensor, a step."""
    latent_rate: float = 0.01
    """codebook: the same for the weights behind them, which take their nearest centroid in every step; 0: indices
    stay."""
    trainable: str = "all"
    """all (everything not quantized) or last_layer (of that, what belongs to the last layer)."""
    loss: str = "kl"
    """Between output vectors: kl, mse (on probabilities), ce (against the teacher's probabilities). Where model.outputs
    is not softmax: kl, which then is that of each yes and no, or of values the squared error."""
    temperature: float = 1.0
    statistics: str = "keep"
    """Batch norm's running mean and variance: keep (and normalise with them), or update (and normalise with the
    batch). On images from elsewhere `update` takes on their statistics, which costs accuracy."""
    teacher_outputs: str = "once"
    """once (computed before the first epoch where the images are the same in every epoch) or live."""
    front: str = "once"
    """Frozen layers at the front, where only the network's end is trained: activations computed once, or live."""
    in_memory: bool = _aside(True)
    """Keep unlabeled images that are the same in every epoch decoded and normalised, up to 2 GiB."""
    augment: str = "none"
    """conventional: of the training images: none, shift, flip_shift."""

    def __post_init__(self) -> None:
        """`Config` checks it, which knows whether it is `retrain` or `baseline`."""

    def check(self, of: str = "retrain.") -> None:
        """Raise ConfigError for what cannot be."""
        super().check(of)
        choice(f"{of}method", self.method, ("proposed", "codebook", "reconstruct", "conventional", "none"))
        choice(f"{of}start", self.start, ("cluster", "reconstruct"))
        if self.start == "reconstruct" and self.method not in ("proposed", "codebook"):
            raise ConfigError(f"{of}start=reconstruct is for retrain=proposed and codebook, not {self.method}")
        choice(f"{of}trainable", self.trainable, ("all", "last_layer"))
        choice(f"{of}loss", self.loss, ("kl", "mse", "ce"))
        choice(f"{of}statistics", self.statistics, ("update", "keep"))
        choice(f"{of}teacher_outputs", self.teacher_outputs, ("once", "live"))
        choice(f"{of}front", self.front, ("once", "live"))
        choice(f"{of}augment", self.augment, ("none", "shift", "flip_shift"))
        for name in ("temperature", "images", "centroid_rate", "damping"):
            positive(**{f"{of}{name}": getattr(self, name)})
        if self.dreams < 0:
            raise ConfigError(f"{of}dreams={self.dreams}: must be 0 or above")
        if not 0 <= self.latent_rate < math.inf:
            raise ConfigError(f"{of}latent_rate={self.latent_rate}: must be 0 or above, and finite")
        if self.method == "codebook" and self.optimizer not in ("adam", "adamw"):
            raise ConfigError(f"{of}optimizer={self.optimizer}: {of}method=codebook needs adam or adamw")


@dataclass
class DataConfig:
    """The labelled images: the test set, and the training set where a step needs it."""

    name: str = MISSING
    """mnist5k, cifar10, imagenet, folder (a tree with a folder for each class), none (no labels: agreement with the
    teacher on a fifth of the unlabeled images, which nothing else looks at)."""
    root: str | None = None
    """Folder of the data (imagenet, folder: the tree to measure on); null: the cache, else a download."""
    train_root: str | None = None
    """imagenet, folder: the training tree, for conventional retraining."""
    limit: int | None = None
    """Use only so many test images (none: so many crops, of photographs)."""
    train_limit: int | None = None
    """Use only so many training images."""
    batch_size: int = _aside(250)
    """Images a step of an evaluation."""
    workers: int = _aside(0)
    """Processes that prepare images; 0: the main one."""

    def __post_init__(self) -> None:
        positive(**{"data.batch_size": self.batch_size, "data.limit": self.limit, "data.train_limit": self.train_limit})
        if self.workers < 0:
            raise ConfigError(f"data.workers={self.workers}: must be 0 (the main process) or above")


@dataclass
class UnlabeledConfig:
    """The images of the proposed retraining."""

    name: str = MISSING
    """digits, folder, photos, cifar10, cifar100, stl10, svhn, mnist5k."""
    root: str | None = None
    """Folder of the images or of the data set."""
    crops: int | None = None
    """Crops an epoch; null: each image whole (sets of small images), or ten crops a photograph."""
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    """Smallest and largest area of a crop, as fractions of the image's."""
    flip: bool = True
    fresh: bool = False
    """New crops in every epoch (the teacher's outputs are then computed live)."""
    limit: int | None = None
    """Use only so many images."""

    def __post_init__(self) -> None:
        positive(**{"unlabeled.crops": self.crops, "unlabeled.limit": self.limit})
        if len(self.scale) != 2:
            raise ConfigError(f"unlabeled.scale={self.scale}: give two numbers, e.g. [0.08,1.0]")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(f"unlabeled.scale={self.scale}: give shares of the area, 0 < least <= greatest <= 1")


@dataclass
class PlanConfig:
    """Which tensors get how many centroids."""

    method: str = "rules"
    """rules, or auto (each layer's weights on a grid as fine as its place in the network asks for, at the size that
    `target` sets)."""
    images: int = 128
    """auto: how many unlabeled images tell what a layer's weights are worth."""
    held_out: int = 256
    """auto with target.max_drop: on how many unlabeled images, or crops, the drop is measured. A fifth of the unlabeled
    images is set aside for it; nothing else looks at those."""
    trellis: bool = True
    """auto with reconstruction: weights between two grids, a trellis saying which; smaller at the same error."""
    rotate: bool = True
    """auto: channels between which and their layers there are only sums (as in MobileNets and EfficientNets) turned to
    where their weights take fewer bits; the network computes what it did."""
    balance: bool = True
    """auto with reconstruction: steps once more by what each layer's rounding costs beside that of all others; a few
    networks more on the way."""
    rules: list[Any] = field(default_factory=list)
    """Each {layers: "14-15", kind: weight, name: <regex>, centroids: 32, method: kmeans}, of which one of
    layers, kind, name at least; the first rule that matches a tensor decides. More a rule may say: granularity and
    split (else `clustering`'s), block (method product), prune (a share) and rank (fully connected layers)."""

    def __post_init__(self) -> None:
        choice("plan.method", self.method, ("rules", "auto"))
        positive(**{"plan.images": self.images, "plan.held_out": self.held_out})
        if self.method == "auto" and self.rules:
            raise ConfigError("plan.method=auto finds its plan by itself: leave plan.rules empty")


@dataclass
class TargetConfig:
    """plan=auto: the size that the file shall have, or how far its outputs may move."""

    size_mb: float | None = None
    """Megabytes (1,000,000 bytes) that the file may have; comes before `reduction`."""
    reduction: float | None = None
    """The share of the original's bytes (four a parameter) that shall be saved, 0 to 1."""
    max_drop: float | None = None
    """In place of a size: the share of held-out unlabeled images, 0 to 1, that may get another class than before."""

    def __post_init__(self) -> None:
        positive(**{"target.size_mb": self.size_mb})
        meanings = {"reduction": "0.9 means a tenth of the size", "max_drop": "0.01 is one image in a hundred"}
        for key, meaning in meanings.items():
            if (share := getattr(self, key)) is not None and not 0 < share < 1:
                raise ConfigError(f"target.{key}={share}: must lie between 0 and 1; {meaning}")
        if self.max_drop is not None and self.size_mb is not None:
            raise ConfigError("target.max_drop and target.size_mb: one of them decides; leave the other out")


@dataclass
class ClusteringConfig:
    """How values are grouped."""

    method: str = "kmeans"
    """equal_population (the paper's), kmeans, exact, linear, faiss, entropy, product (vectors)."""
    centroid: str | None = None
    """linear: mean (of the values in a cell; the default) or middle (of the cell)."""
    bits: float | None = None
    """entropy: what the entropy of each tensor's indices should be, bits a weight; at most log2 of centroids."""
    lmbda: float | None = None
    """entropy: what a bit is worth, in squared error; instead of bits."""
    block: int | None = None
    """product: values of a vector, a divisor of those in an output channel; null: chosen by the tensor's shape."""
    granularity: str = "tensor"
    """What shares a table of centroids: tensor, channel (an output channel) or group:<values>; channel_scale or
    group_scale:<values>: one table, and a factor for each channel or group."""
    split: float = 0.0
    """Outlier channels that are split before clustering, as a share of the input channels."""

    def __post_init__(self) -> None:
        if not 0 <= self.split <= 1:
            raise ConfigError(f"clustering.split={self.split}: must be from 0 to 1, a share of the input channels")


@dataclass
class StorageConfig:
    """How the compressed network is stored."""

    method: str = "packed"
    """gzip (the paper's), packed (ceil(log2 k) bits an index) or entropy (as few bits as their distribution allows)."""
    centroids: str | None = None
    """Round centroids to bfloat16 (8 significant bits) or float16 (11), two bytes each; null: float32."""
    dense: str | None = None
    """The same for tensors that are not clustered. Values that 16 bits hold exactly take two bytes either way."""

    def __post_init__(self) -> None:
        for key, half in (("centroids", self.centroids), ("dense", self.dense)):
            if half not in (None, "bfloat16", "float16"):
                raise ConfigError(f"storage.{key}={half}: choose bfloat16 or float16, or null to leave it float32")
            if half and self.method == "gzip":
                raise ConfigError(f"storage.{key}={half}: gzip holds float32 values; use storage=packed or entropy")


@dataclass
class SensitivityConfig:
    """task=sensitivity: which networks are measured: all tensors of a kind in some layers clustered, all else left."""

    kinds: list[str] = field(default_factory=lambda: ["weight"])
    """Of weight, bias, bn_alpha, bn_beta, bn_mean, bn_std."""
    layers: list[str] = field(default_factory=lambda: ["each"])
    """As in a plan's rules, e.g. [each,"14-15"]; `each` stands for every layer that has the kind, alone."""
    centroids: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32, 64, 128, 256])
    screen: bool = _aside(False)
    """Count on classes in bfloat16 where they are sure to be float32's: two thirds of the time, no KL."""

    def __post_init__(self) -> None:
        for key, values in (("kinds", self.kinds), ("layers", self.layers), ("centroids", self.centroids)):
            if not values:
                raise ConfigError(f"sensitivity.{key}=[]: give one at least, or leave it out for the default")
        for kind in self.kinds:
            choice("sensitivity.kinds", kind, KINDS)
        for k in self.centroids:
            if not 1 <= k <= MAX_CENTROIDS:
                raise ConfigError(
                    f"sensitivity.centroids={self.centroids}: each must be from 1 to {MAX_CENTROIDS}, not {k}"
                )


@dataclass
class TrainerConfig:
    """What it runs on."""

    accelerator: str = _aside("cpu")
    """cpu, gpu, auto."""
    devices: int = 1
    """Processes a node; batch_size is per device, so that their number changes the result."""
    num_nodes: int = 1
    strategy: str = _aside("auto")
    sync_batchnorm: bool = False
    precision: str = "32-true"
    threads: int | None = _aside(None)
    """CPU threads of a process; null: torch's choice, or of several devices each its share of the cores."""

    def __post_init__(self) -> None:
        choice("trainer.accelerator", self.accelerator, ("cpu", "gpu", "auto"))
        choice("trainer.strategy", self.strategy, ("auto", "ddp"))
        choice("trainer.precision", self.precision, ("32-true", "16-mixed", "bf16-mixed"))
        positive(**{"trainer.devices": self.devices, "trainer.num_nodes": self.num_nodes})
        positive(**{"trainer.threads": self.threads})


@dataclass
class LoggerConfig:
    """Where curves go, beside result.json."""

    name: str = _aside("csv")
    """csv or wandb (csv is written in either case)."""
    project: str = _aside("requant")
    mode: str = _aside("offline")
    """wandb's mode: offline, online, disabled."""
    artifact: bool = _aside(False)
    """wandb: upload the compressed network too."""

    def __post_init__(self) -> None:
        choice("logger.name", self.name, ("csv", "wandb"))
        choice("logger.mode", self.mode, ("offline", "online", "disabled"))


@dataclass
class Config:
    """All settings of one run."""

    task: str = "compress"
    """compress, teacher (only train and keep the teacher), or sensitivity (one layer at a time, at each k)."""
    centroids: Any = 8
    """k: clusters a tensor, where a rule says ${centroids}."""
    seed: int = 0
    name: str = _aside("default")
    """The experiment's name: the first folder under `out`."""
    model: ModelConfig = MISSING
    teacher: TeacherConfig = MISSING
    data: DataConfig = MISSING
    unlabeled: UnlabeledConfig = MISSING
    plan: PlanConfig = MISSING
    target: TargetConfig = field(default_factory=TargetConfig)
    clustering: ClusteringConfig = MISSING
    storage: StorageConfig = MISSING
    retrain: RetrainConfig = MISSING
    baseline: RetrainConfig = MISSING
    sensitivity: SensitivityConfig = field(default_factory=SensitivityConfig)
    trainer: TrainerConfig = MISSING
    logger: LoggerConfig = MISSING
    force: bool = _aside(False)
    """Start over although a result or a checkpoint is there."""
    dry_run: bool = _aside(False)
    """List the runs with their folders and states, and start none."""
    out: str = _aside("outputs")
    """The folder for runs."""

    def __post_init__(self) -> None:
        choice("task", self.task, ("compress", "teacher", "sensitivity"))
        self.retrain.check("retrain.")
        if self.baseline.method in ("proposed", "reconstruct", "codebook"):
            method = self.baseline.method
            raise ConfigError(f"baseline.method={method}: it is conventional or none; set retrain={method}")
        self.baseline.check("baseline.")
        self._check_outputs()
        if self.task != "compress" and self.trainer.devices * self.trainer.num_nodes > 1:
            raise ConfigError(f"task={self.task} works in one process: set trainer.devices=1 and trainer.num_nodes=1")
        if not isinstance(self.centroids, int) or not 1 <= self.centroids <= MAX_CENTROIDS:
            raise ConfigError(
                f"centroids={self.centroids}: must be a whole number from 1 to {MAX_CENTROIDS}; "
                "several make a sweep: python run.py -m centroids=8,16,32"
            )
        if self.plan.method == "auto":
            self._check_auto()
        elif aims := [key for key, value in vars(self.target).items() if value is not None]:
            raise ConfigError(f"target.{aims[0]} is what plan=auto aims at: set plan=auto, or leave it out")
        elif self.task == "compress" and not self.plan.rules:
            raise ConfigError("plan.rules=[]: nothing would be clustered; choose a plan, or give a rule")
        if self.task == "teacher" and self.model.weights != "trained":
            raise ConfigError(f"task=teacher trains weights, but model.weights={self.model.weights}: set it to trained")
        if self.teacher.keep is not None and not self.teacher.keep.endswith(".safetensors"):
            raise ConfigError(f"teacher.keep={self.teacher.keep}: must end in .safetensors")

    def _check_outputs(self) -> None:
        if self.model.outputs == "softmax":
            return
        if self.data.name != "none":
            raise ConfigError(
                f"model.outputs={self.model.outputs}: data={self.data.name} has labels of classes, which say nothing "
                "about such outputs; set data=none, which measures on unlabeled images how near they stay"
            )
        if self.model.outputs == "values" and self.retrain.dreams:
            raise ConfigError(f"retrain.dreams={self.retrain.dreams} are of classes: set 0 for model.outputs=values")
        usual = {"loss": "kl", "temperature": 1.0}
        for key, value in usual.items():
            if (found := getattr(self.retrain, key)) != value and (key == "loss" or self.model.outputs == "values"):
                raise ConfigError(f"retrain.{key}={found} is for model.outputs=softmax, not {self.model.outputs}")

    def _check_auto(self) -> None:
        if self.target.size_mb is None and self.target.reduction is None and self.target.max_drop is None:
            raise ConfigError(
                "plan=auto needs an aim: set target.size_mb=<megabytes>, target.reduction=<0 to 1> "
                "or target.max_drop=<0 to 1>"
            )
        if self.storage.method != "entropy":
            raise ConfigError(f"plan=auto needs entropy coding, not storage={self.storage.method}: set storage=entropy")
        if self.trainer.devices * self.trainer.num_nodes > 1:
            raise ConfigError("plan=auto works in one process: set trainer.devices=1")
        if self.retrain.method == "codebook" and not self.retrain.latent_rate:
            raise ConfigError("plan=auto with retrain=codebook needs retrain.latent_rate above 0, e.g. 0.01")
