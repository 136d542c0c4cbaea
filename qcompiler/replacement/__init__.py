"""Replacements: a block of layers swapped for a cheaper one, fitted in closed form on calibration data.

A replacement computes ``y = A φ(P x + c) + B x + b`` where the region had ``y = W2 f(W1 x + b1) + b2`` (or a longer
chain). The feature map φ(P x + c) is drawn from a seed or made of some of the region's own neurons; A, B and b are the
least squares answer, so there is nothing to train.

- `features`: feature maps, and what they are made of.
- `estimators`: the kernels that such maps estimate without bias (Scalable Neural Network Kernels), for analysis.
- `fit`: normal equations, streamed, and ridge regression with its penalty chosen on rows held out.
- `neurons`: which neurons to keep.
- `factor`: low rank and two-core tensor-train forms of one weight.
- `cost`: multiply-accumulates and bytes.
- `regions`, `observe`, `rewrite`: where replacements fit in a graph, what to fit them to, and how they are put there.
"""
