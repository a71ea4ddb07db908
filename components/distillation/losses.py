"""The baselines of distillation: soft targets, and regression on features."""

from torch import Tensor
from torch.nn import functional as F


def soft_targets(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), the mean over logits (B, K) each; a scalar.

    Hinton, Vinyals and Dean 2015, arXiv 1503.02531, section 2; their T² keeps the gradient's size whatever T is.
    """
    s, t = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(s, t, reduction="batchmean", log_target=True)


def feature_regression(predicted: Tensor, teacher: Tensor) -> Tensor:
    """½‖teacher − predicted‖² of features (B, D), the mean over images and dimensions; a scalar.

    Romero et al. 2015 (FitNets), arXiv 1412.6550, equation 3, on the pooled features instead of a layer in the middle.
    """
    return F.mse_loss(predicted, teacher) / 2
