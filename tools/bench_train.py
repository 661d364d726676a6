"""One training step of the published PU-Net and SPU-Net on 32 patches: layouts and precisions in one run.

    python tools/bench_train.py [--device cpu] [--threads 2] [--batch 32] [--model punet]

Allocator settings count on a CPU: with glibc, MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_ and MALLOC_TOP_PAD_ (see
the Makefile) keep freed pages; `make bench` sets them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import torch

from aleatoric.losses import DivergenceTerm, KLDivergence, NegativeLogLikelihood, SinkhornDivergence, VariationalLoss
from aleatoric.precision import bf16_is_native
from bench_sampling import published_network
from timing import best_seconds, print_ratios

GFLOP_PER_IMAGE = {"punet": 39.8, "spunet": 64.5}  # forward and backward; SPU-Net with four posteriors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--model", choices=tuple(GFLOP_PER_IMAGE), default="punet")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--emulated", action="store_true", help="time bfloat16 even where it is only emulated")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    spunet = options.model == "spunet"
    terms = {"kl": DivergenceTerm(KLDivergence(), 10.0 if spunet else 1.0)}
    if spunet:
        terms["sinkhorn"] = DivergenceTerm(SinkhornDivergence(), 100.0)
    loss = VariationalLoss(NegativeLogLikelihood(), terms)
    image = torch.rand(options.batch, 1, 128, 128, device=options.device)
    label = torch.randint(0, 2, (options.batch, 4, 128, 128), dtype=torch.uint8, device=options.device)

    def step(bf16: bool, layout: torch.memory_format) -> Callable[[], None]:
        network = published_network(bf16, all_raters=spunet).to(options.device, memory_format=layout)
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)

        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss(network(image, label), label).backward()
            optimizer.step()

        return run

    functions = {
        "float32, channels first": step(False, torch.contiguous_format),
        "float32, channels last": step(False, torch.channels_last),
    }
    if bf16_is_native(options.device) or options.emulated:
        functions["bfloat16, channels last"] = step(True, torch.channels_last)
    else:
        print(f"bfloat16 is left out: {options.device} only emulates it here (--emulated times it all the same)")
    print(f"MALLOC_MMAP_THRESHOLD_={os.environ.get('MALLOC_MMAP_THRESHOLD_', 'not set')}")
    times = best_seconds(functions, options.repeats, options.device)
    print_ratios(times, "float32, channels first")
    for name, seconds in times.items():
        rate = options.batch / seconds
        print(f"{name}: {rate:.1f} images/s, {rate * GFLOP_PER_IMAGE[options.model] / 1000:.2f} TFLOP/s")


if __name__ == "__main__":
    main()
