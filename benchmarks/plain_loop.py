"""What everybody writes: the yardstick of extraction's speed. Imports nothing that such a script would not."""


def plain_loop(path: str, model: str, threads: int = 1) -> int:
    """What everybody writes: OpenCV, which decodes on so many threads (0: on as many as it likes), and stock MediaPipe."""
    import cv2
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    base = BaseOptions(model_asset_path=model)
    options = vision.PoseLandmarkerOptions(base_options=base, running_mode=vision.RunningMode.VIDEO)
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
    rate, count = capture.get(cv2.CAP_PROP_FPS), 0
    with vision.PoseLandmarker.create_from_options(options) as landmarker:
        while True:
            read, bgr = capture.read()
            if not read:
                return count
            rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            landmarker.detect_for_video(mediapipe.Image(mediapipe.ImageFormat.SRGB, rgb), round(1000 * count / rate))
            count += 1


if __name__ == "__main__":
    import sys

    print(plain_loop(sys.argv[1], sys.argv[2], threads=0))
