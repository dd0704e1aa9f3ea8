"""A webcam through MediaPipe, refined: the model file has the refiner inside, so this is MediaPipe's own code and nothing else.

    refiner export --to task
    python webcam.py pose_landmarker_full_refined.task
    python webcam.py pose_landmarker_full_refined.task --source dance.mp4 --no-window

Prints how far each wrist is from the hips, towards the camera; Esc ends it.
"""

import argparse
import time

import cv2
import mediapipe as mp
from mediapipe.tasks.python import BaseOptions, vision

LEFT_WRIST, RIGHT_WRIST = 15, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the .task file")
    parser.add_argument("--source", default="0", help="number of the webcam, or a video file")
    parser.add_argument("--no-window", action="store_true", help="only print")
    arguments = parser.parse_args()

    options = vision.PoseLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=arguments.model), running_mode=vision.RunningMode.VIDEO
    )
    source = int(arguments.source) if arguments.source.isdecimal() else arguments.source
    capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        raise SystemExit(f"{arguments.source} does not open: give the number of a webcam or a video file")
    start, last_ms = time.monotonic(), -1
    with vision.PoseLandmarker.create_from_options(options) as landmarker:
        while True:
            there, bgr = capture.read()
            if not there:
                break
            now_ms = round((time.monotonic() - start) * 1000)
            if isinstance(source, str):
                now_ms = round(capture.get(cv2.CAP_PROP_POS_MSEC))
            last_ms = max(last_ms + 1, now_ms)  # MediaPipe wants them to rise
            picture = mp.Image(mp.ImageFormat.SRGB, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
            seen = landmarker.detect_for_video(picture, last_ms)
            if seen.pose_world_landmarks:
                body, points = seen.pose_world_landmarks[0], seen.pose_landmarks[0]
                left, right = -body[LEFT_WRIST].z, -body[RIGHT_WRIST].z
                print(f"{last_ms / 1000:7.2f} s  left wrist {left:+.2f} m, right wrist {right:+.2f} m", flush=True)
                for point in points:
                    place = (int(point.x * bgr.shape[1]), int(point.y * bgr.shape[0]))
                    cv2.circle(bgr, place, 4, (165, 209, 79), -1)
            if not arguments.no_window:
                cv2.imshow("refined", bgr)
                if cv2.waitKey(1) == 27:
                    break
    capture.release()


if __name__ == "__main__":
    main()
