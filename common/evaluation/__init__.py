"""How models are measured: each metric against the reference it is proved by.

A metric gives a `Score`: a value with its standard error, n, the split, and a protocol that says what decides it. Two
scores compare when their names and protocols are equal. By what is measured:

* **Likelihood**: `likelihood` (bounds, bits per dimension), `ais` (annealed importance sampling, for decoders),
  `density` (on a grid), `parzen`, and of tokens `text` (perplexity, bits per character).
* **Samples against data**, in the features of a named network: `frechet` and `frechet_bias` (the Fréchet distance,
  extrapolated in n), `kernels` (KID, MMD), `manifold` (precision, recall, density, coverage), `sliced` (sliced
  Wasserstein), `two_sample` (can a classifier tell?), `modes` and `critics` (where the data are known). Without data:
  `class_score`.
* **Copies of training examples**: `memorisation`, calibrated by held-out data.
* **Against a reference each**: `restoration` (PSNR, SSIM, LPIPS), `audio` (SNR, log-spectral distance), `text` (BLEU,
  chrF).

`networks` has the feature networks by name (`features`, `lenet`, `efficientnet` are what they are made of), `bank` the
features of a set of examples, which every metric of samples takes, `samples` reads folders and files of people's own,
and `metrics` has all metrics by name, for `referee evaluate`. `shards` divides batches and samples among the processes
of a run.

>>> import torch
>>> from common.evaluation.bank import Bank
>>> from common.evaluation.kernels import kid_score
>>> samples, data = (torch.randn(50, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
>>> a, b = Bank("", "samples", "test").add(samples), Bank("", "MNIST test", "test").add(data)
>>> kid_score(a, b, generator=torch.Generator().manual_seed(0)).protocol     # doctest: +ELLIPSIS
'50 samples against 50 of MNIST test, features of no network; kernel (x.y/d + 1)^3, unbiased, all pairs; ...'
"""
