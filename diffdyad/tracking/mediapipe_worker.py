"""Finds faces' landmarks with MediaPipe; run by an interpreter that has it, which need not have diffdyad.

Standard input: a line of JSON, {"width", "height", "fps", "faces", "model"}, then frames of width x height x 3 bytes
(RGB). Standard output: a line of JSON, {"version", "landmarks"} or {"error"}, then for every frame one byte, the number
of faces, and of each so many landmarks as little-endian float32: column and row in pixels, and depth in the same unit,
less is nearer.
"""

import json
import os
import struct
import sys

LANDMARKS = 478


def main() -> None:
    frames, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    request = json.loads(frames.readline())
    try:
        import mediapipe
        import numpy as np

        find = _landmarker(mediapipe, request)
    except Exception as error:
        _say(answers, {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
        return
    _say(answers, {"version": mediapipe.__version__, "landmarks": LANDMARKS})
    width, height = request["width"], request["height"]
    number = 0
    while len(data := frames.read(width * height * 3)) == width * height * 3:
        faces = find(np.frombuffer(data, np.uint8).reshape(height, width, 3), number)
        answers.write(struct.pack("B", len(faces)))
        for face in faces:
            points = np.array([(p.x * width, p.y * height, p.z * width) for p in face], "<f4")
            answers.write(points.tobytes())
        answers.flush()
        number += 1


def _say(answers, what: dict) -> None:
    answers.write(json.dumps(what).encode() + b"\n")
    answers.flush()


def _landmarker(mediapipe, request: dict):
    """frame, number -> lists of landmarks. A model file: the FaceLandmarker task; none: the models in the package."""
    if request.get("model"):
        vision = mediapipe.tasks.vision
        options = vision.FaceLandmarkerOptions(
            base_options=mediapipe.tasks.BaseOptions(model_asset_path=request["model"]),
            running_mode=vision.RunningMode.VIDEO, num_faces=request["faces"],
        )  # fmt: skip
        task = vision.FaceLandmarker.create_from_options(options)

        def by_task(frame, number):
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame)
            return task.detect_for_video(image, round(1000 * number / request["fps"])).face_landmarks

        return by_task
    if not hasattr(mediapipe, "solutions"):
        raise RuntimeError(f"mediapipe {mediapipe.__version__} has no models of its own: give a face_landmarker.task")
    mesh = mediapipe.solutions.face_mesh.FaceMesh(max_num_faces=request["faces"], refine_landmarks=True)

    def by_package(frame, _):
        found = mesh.process(frame).multi_face_landmarks or []
        return [face.landmark for face in found]

    return by_package


if __name__ == "__main__":
    main()
