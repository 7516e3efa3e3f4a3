"""The same bits whenever the same run is computed on the same GPU."""

import os

import torch

# cuBLAS keeps the order of its sums only with a workspace of one of the sizes that it names for this.
CUBLAS_WORKSPACE = ":4096:8"


def use_deterministic_algorithms() -> None:
    """Has PyTorch take algorithms whose sums do not depend on which thread of a GPU ends first.

    They are slower. Where an operation has none, PyTorch raises an error that names it. It holds for the
    whole process, and must come before anything is computed on a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False  # it would choose by what was quickest this time
    torch.use_deterministic_algorithms(True)
