"""Frames per second of the renderer on the clay head, as one line of JSON."""

import argparse
import json
import os
import time

import numpy as np
import torch

from diffdyad.head import HeadModel
from diffdyad.render import Renderer, render_frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100, help="number of frames (default 100)")
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels (default 512)")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default 2)")
    arguments = parser.parse_args()

    head = HeadModel.clay()
    seconds = torch.arange(arguments.frames) / 25
    poses = torch.zeros(arguments.frames, 15)
    poses[:, 1] = 0.3 * torch.sin(2 * torch.pi * 0.3 * seconds)
    poses[:, 6] = 0.15 * (1 - torch.cos(2 * torch.pi * 3 * seconds))
    with torch.no_grad():
        vertices = head(poses=poses).numpy()

    started = time.perf_counter()
    renderer = Renderer.for_head(head, size=(arguments.size, arguments.size))
    prepared = time.perf_counter()
    renderer.render(vertices[0])
    single = time.perf_counter()
    cpu = time.process_time()
    alone = sum(1 for v in vertices[:20] if renderer.render(v) is not None)
    cpu = time.process_time() - cpu
    looped = time.perf_counter()
    total = sum(1 for _ in render_frames(renderer, vertices, processes=arguments.processes))
    done = time.perf_counter()
    print(
        json.dumps(
            {
                "benchmark": "render",
                "size": arguments.size,
                "vertices": int(np.shape(vertices)[1]),
                "cpus": os.cpu_count(),
                "prepare_s": round(prepared - started, 3),
                "first_frame_s": round(single - prepared, 3),
                "frames_per_s_one_process": round(alone / (looped - single), 2),
                "cpu_ms_per_frame": round(1000 * cpu / alone, 1),
                "processes": arguments.processes,
                "frames": total,
                "frames_per_s": round(total / (done - looped), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
