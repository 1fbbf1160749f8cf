"""The kinds of parameter that a rule can choose."""

KINDS: tuple[str, ...] = ("weight", "bias", "bn_alpha", "bn_beta", "bn_mean", "bn_std")
"""Every kind, in the order of the paper's figures.

`weight`: the kernel of a convolution, the matrix of a fully connected layer.
`bias`: what such a layer adds to its output.
`bn_alpha`: a batch normalization's scale (PyTorch: `weight`).
`bn_beta`: its shift (PyTorch: `bias`).
`bn_mean`: its running mean.
`bn_std`: its running spread (PyTorch keeps the variance, `running_var`).
"""
