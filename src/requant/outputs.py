"""What a network gives for images, and how far what another gives is from it.

Outputs are (N, C), or (N, C, ...) where each position of an image has its own (segmentation, depth). What the C numbers
are, nothing in the network says: its user does.

- `softmax`: scores of C classes, of which one is right;
- `sigmoid`: scores of C things (tags, a mask), each of which is there or not;
- `values`: numbers that count as they are (embeddings, coordinates, depths, pixels).

So the divergence is between distributions of classes, of yes and no for each thing, or, of values, between Gaussians of
one variance: up to a factor the squared error. It is the mean over images and positions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from requant.errors import ConfigError, UserError
from requant.suggest import did_you_mean

DEPTH = "predicted_depth"  # (N, H, W)
KEYS = ("out", "logits", "image_embeds", "pooler_output", DEPTH)
"""Under which of these names networks give their outputs among other things: torchvision's, Hugging Face's; of several
that are there the first counts.
"""


def main(found: Any) -> Any:
    """Of what a network gives by name, what goes by one of `KEYS`, as (N, C, ...); anything else as it is."""
    key = next((key for key in KEYS if key in found), None) if isinstance(found, Mapping) else None
    if key is None:
        return found
    return found[key].unsqueeze(1) if key == DEPTH else found[key]


@dataclass(frozen=True)
class Outputs:
    """What numbers mean.

    Attributes:
        name: by which a user calls it.
        divergences: of found outputs from wanted ones (N, C, ...), their sum over images and positions.
        surprise: -log p(y) of outputs y that are drawn from the network's own distribution, the sum over positions;
            its expected squared gradient is the second derivative of the divergence.
        decided: the classes (N, ...), or which things are there (N, C, ...); None: nothing is.
        losing: what `lost` says, in a few words behind a number.
        log_probabilities: of each class, or of each thing being there, from outputs (N, C, ...); None: there are none.

    """

    name: str
    divergences: Callable[[Tensor, Tensor], Tensor]
    surprise: Callable[[Tensor, torch.Generator], Tensor]
    decided: Callable[[Tensor], Tensor] | None
    losing: str
    log_probabilities: Callable[[Tensor], Tensor] | None

    @property
    def distance(self) -> str:
        """What the divergence is called."""
        return "the squared error" if self.decided is None else "KL"

    def of(self, model: nn.Module, images: Tensor) -> Tensor:
        """The network's outputs (N, C, ...).

        Raises:
            UserError: for outputs of another form.

        """
        return self.checked(model(images), model, len(images))

    def checked(self, found: Any, model: nn.Module, images: int) -> Tensor:
        """Outputs as `of` gives them, from what the network gave for so many images."""
        found, name = main(found), type(model).__name__
        if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != images:
            form = f"a {type(found).__name__}"
            if isinstance(found, Tensor):
                form = f"a tensor of shape {tuple(found.shape)}"
            raise UserError(
                f"{name} gives {form} for {images} images, where one tensor (images, classes), or (images, classes, "
                f"height, width), is needed, alone or by the name of {' or '.join(map(repr, KEYS))}: wrap it in a "
                "module that returns just that"
            )
        if found.shape[1] == 1 and self is SOFTMAX:
            raise UserError(
                f"{name} gives one number for an image, and outputs=softmax compares the scores of several classes: "
                "set outputs=sigmoid (a score of yes or no) or outputs=values (a number as it is)"
            )
        return found

    def divergence(self, found: Tensor, wanted: Tensor) -> Tensor:
        """The mean over images and positions."""
        return self.divergences(found, wanted) / (len(found) * positions(found))

    def goal(self, wanted: Tensor) -> Tensor:
        """In place of labels, from the teacher's outputs: what it decides; of values these themselves."""
        return wanted if self.decided is None else self.decided(wanted)

    def counts(self, found: Tensor, goals: Tensor) -> Tensor:
        """What `accuracy` needs of some images, to be added up: how many decisions are right, and of how many."""
        if self.decided is None:
            return tally(found, goals)
        right = self.decided(found) == goals
        return torch.stack([right.sum(), torch.tensor(right.numel(), device=right.device)])

    def accuracy(self, counts: Tensor) -> dict[str, Any]:
        """`correct`, `n` and their ratio `top1`; of values how many, and as `top1` the share of variance explained."""
        if self.decided is None:
            return {"n": int(counts[COUNT]), "top1": explained(counts)}
        correct, n = (int(count) for count in counts)
        return {"correct": correct, "n": n, "top1": correct / n}

    def lost(self, found: Tensor, wanted: Tensor) -> float:
        """The share of decisions that are others; of values the share of their variance that is missed."""
        return self.missed(self.goal(found), self.goal(wanted))

    def missed(self, found: Tensor, wanted: Tensor) -> float:
        """`lost`, from what `goal` gives of the outputs, which takes less memory where these are scores."""
        if self.decided is not None:
            return float((found != wanted).double().mean())
        return 1 - explained(tally(found, wanted))


def positions(outputs: Tensor) -> int:
    """Positions of an image that have outputs of their own; 1 of (N, C)."""
    return outputs[0, 0].numel()


COUNT = 2  # where it is in a tally


def tally(found: Tensor, wanted: Tensor) -> Tensor:
    """What `explained` needs of some images' values (N, C, ...), to be added up: (C + 3,) float64."""
    error, wanted = (found.double() - wanted.double()).square().sum(), wanted.double()
    sums_C = wanted.movedim(1, -1).reshape(-1, wanted.shape[1]).sum(0)
    count = torch.tensor(float(len(wanted) * positions(wanted)), dtype=torch.float64, device=wanted.device)
    return torch.cat([torch.stack([error, wanted.square().sum(), count]), sums_C])


def explained(tallied: Tensor) -> float:
    """1 less the squared error, in parts of the values' variance about the mean of each of the C; below 0: worse than
    these means.
    """
    error, squares, count = map(float, tallied[: COUNT + 1])
    variance = squares - float(tallied[COUNT + 1 :].square().sum()) / count
    if not variance > 0:  # all alike
        return float(not error)
    return 1 - error / variance


def _softmax_divergences(found: Tensor, wanted: Tensor) -> Tensor:
    return F.kl_div(found.log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="sum")


def _softmax_surprise(outputs: Tensor, random: torch.Generator) -> Tensor:
    log_shares = outputs.log_softmax(1).movedim(1, -1).reshape(-1, outputs.shape[1])
    drawn = torch.multinomial(log_shares.detach().exp().cpu(), 1, generator=random).to(outputs.device)
    return -log_shares.gather(1, drawn).sum()


def _sigmoid_divergences(found: Tensor, wanted: Tensor) -> Tensor:
    yes = wanted.sigmoid() * (F.logsigmoid(wanted) - F.logsigmoid(found))
    no = (-wanted).sigmoid() * (F.logsigmoid(-wanted) - F.logsigmoid(-found))
    return (yes + no).sum()


def _sigmoid_surprise(outputs: Tensor, random: torch.Generator) -> Tensor:
    drawn = torch.bernoulli(outputs.detach().sigmoid().cpu(), generator=random).to(outputs.device)
    return F.binary_cross_entropy_with_logits(outputs, drawn, reduction="sum")


def _squared_errors(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).square().sum()


def _value_surprise(outputs: Tensor, random: torch.Generator) -> Tensor:
    """Of a Gaussian of variance 1, but for what has no gradient: noise, of which signs do, times the outputs."""
    signs = 2 * torch.randint(2, outputs.shape, generator=random) - 1
    return -(signs.to(outputs) * outputs).sum()


SOFTMAX = Outputs(
    "softmax",
    _softmax_divergences,
    _softmax_surprise,
    lambda found: found.argmax(1),
    "get another class",
    lambda found: found.log_softmax(1),
)
SIGMOID = Outputs(
    "sigmoid", _sigmoid_divergences, _sigmoid_surprise, lambda found: found > 0, "are decided otherwise", F.logsigmoid
)
VALUES = Outputs("values", _squared_errors, _value_surprise, None, "of the outputs' variance is lost", None)
KINDS = {kind.name: kind for kind in (SOFTMAX, SIGMOID, VALUES)}


def meaning(name: str) -> Outputs:
    """What outputs are, by the name that a user gave. Raises ConfigError for another."""
    if name not in KINDS:
        raise ConfigError(f"outputs={name}: choose {', '.join(KINDS)}{did_you_mean(name, KINDS)}")
    return KINDS[name]
