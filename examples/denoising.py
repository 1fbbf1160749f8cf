"""A network whose outputs are pixels, made ten times smaller: python examples/denoising.py (two minutes on two cores).

A small denoiser is trained here on photographs that packages carry; then `requant.compress_to` makes it smaller without
knowing what the noise was: it looks at noisy images alone. Written: denoising.h5 and denoising.png, in the folder that
--out names.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import requant
from requant import data
from requant.preprocessing import Preprocessing

NOISE, SIZE = 25 / 255, 32  # standard deviation of the noise, pixels of an image's side
PLAIN = Preprocessing(size=SIZE, resize=SIZE, mean=(0.0,) * 3, std=(1.0,) * 3)


class Denoiser(nn.Module):
    """Finds the noise, which is taken off: images (N, 3, H, W) from 0 to 1, and without noise."""

    def __init__(self, width: int = 32, depth: int = 5) -> None:
        super().__init__()
        middle = [layer for _ in range(depth) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())]
        first, last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.noise = nn.Sequential(first, nn.ReLU(), *middle, last)

    def forward(self, images: Tensor) -> Tensor:
        """The images less the noise."""
        found: Tensor = images - self.noise(images)
        return found


def photographs(part: data.Part, count: int, scale: tuple[float, float] = (0.003, 0.05)) -> Tensor:
    """Crops (N, 3, H, W) of the photographs of one part."""
    crops = data.unlabeled("photos", PLAIN, part=part, crops=count, scale=scale, seed=0)
    return torch.cat(list(data.loader(crops, 100, shuffle=False)))


def train(noisy: Tensor, clean: Tensor, steps: int) -> nn.Module:
    """A denoiser that has seen these, taught with noise of which the truth is known."""
    model, random = Denoiser(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(noisy), (16,), generator=random)
        loss = (model(noisy[chosen]) - clean[chosen]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def decibels(found: Tensor, clean: Tensor) -> float:
    """Peak signal to noise ratio."""
    return float(-10 * (found.clamp(0, 1) - clean).square().mean().log10())


def draw(path: Path, shown: dict[str, Tensor]) -> None:
    """One image each, side by side."""
    figure = Figure(figsize=(7, 1.95), layout="constrained")
    for axes, (title, image) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        axes.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Train, compress, measure on photographs that nothing else looks at, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs"))
    parser.add_argument("--steps", type=int, default=1500, help="of training the denoiser")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    clean, others = photographs("seen", 4000), photographs("held_out", 300)
    noisy, test = (images + NOISE * torch.randn_like(images) for images in (clean, others))
    teacher = train(noisy, clean, given.steps)

    original = 4 * sum(parameter.numel() for parameter in teacher.parameters())
    small = requant.compress_to(teacher, noisy, size=original // 10, outputs="values")
    path = given.out / "denoising.h5"
    size = requant.save(path, small.model, small.codebooks, storage="entropy").bytes
    student = requant.load(path, Denoiser())

    with torch.no_grad():
        outputs, wanted = student(test), teacher(test)
    lost = 1 - requant.evaluate(student, [(test, wanted)], outputs="values").top1
    print(f"{original:,} bytes, {decibels(wanted, others):.2f} dB (the noisy images {decibels(test, others):.2f} dB)")
    print(f"{size:,} bytes, {decibels(outputs, others):.2f} dB; {lost:.3%} of the outputs' variance is lost")
    large = Preprocessing(size=160, resize=160, mean=(0.0,) * 3, std=(1.0,) * 3)
    crop = data.unlabeled("photos", large, part="held_out", crops=4, scale=(0.1, 0.2), seed=0).__getitems__([0])
    with torch.no_grad():
        dirty = crop + NOISE * torch.randn_like(crop)
        titles = (
            "noisy",
            f"the network, {original / 1e3:.0f} kB",
            f"the small one, {size / 1e3:.0f} kB",
            "the photograph",
        )
        shown = dict(zip(titles, (dirty[0], teacher(dirty)[0], student(dirty)[0], crop[0]), strict=True))
    draw(given.out / "denoising.png", shown)
    print(f"Written:\n  {path}\n  {given.out / 'denoising.png'}")


if __name__ == "__main__":
    main()
