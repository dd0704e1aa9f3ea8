"""The HTTP contract as pydantic models: for the OpenAPI documents and the app's arguments, never for a request's poses.

Validating 17 × 3 floats a pose through pydantic costs more than refining them; `serve.codec` and
`refiner.inference.depth_refiner.validate_poses` do it on arrays.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from refiner.skeleton import BONES, NUM_JOINTS, NUM_LANDMARKS
from refiner.temporal import LEAST_FPS, MOST_FPS, check_fps

Point = Annotated[list[float], Field(min_length=3, max_length=3)]
Pose = Annotated[list[Point], Field(min_length=NUM_JOINTS, max_length=NUM_LANDMARKS)]
FrameRate = Annotated[float, Field(ge=LEAST_FPS, le=MOST_FPS), BeforeValidator(check_fps)]


class AppArgs(BaseModel):
    """Arguments of the Serve application, `args:` in its config."""

    model_config = ConfigDict(extra="forbid")

    model: str = "models:/pose-depth-refiner@champion"
    """What is served: an alias (followed when it moves), a version, or a folder with a checkpoint."""
    device: str | None = None
    """A torch device; None is the GPU if this replica has one, else the CPU."""
    threads: int = Field(default=1, gt=0)
    """CPU threads of one replica's model, where it has no GPU; keep it to the `num_cpus` of the deployment."""
    cache: str = "~/.cache/pose-depth-refiner/served"
    """Folder that remembers which version served last, for a start while the registry offers none."""
    poll_s: float = Field(default=2.0, gt=0)
    """How often the registry is asked whether the alias has moved."""
    max_poses: int = Field(default=16_384, gt=0)
    """Longest clip of one request; 16,384 are 4.5 minutes at 60 fps, and 3.3 MB as Arrow."""
    max_body_mb: float = Field(default=32, gt=0)
    """Largest body; 16,384 poses of 33 joints with visibility are 27 MB as JSON."""
    uploads_mb: float = Field(default=2_048, gt=0)
    """Disk that the large bodies under way in a replica may take together; beyond it the answer is 429."""
    memory_mb: float = Field(default=256, gt=0)
    """Memory that the arrays and answers of long requests may take together; beyond it the answer is 429."""
    token_file: str | None = None
    """File of bearer tokens, one a line, read again when it changes; POSE_API_TOKENS (comma-separated) is read, too."""
    cors_origins: list[str] = []
    """Web origins that may call; none by default."""
    max_streams: int = Field(default=128, gt=0)
    """Streams of a replica; a core answers some 75 at 30 frames/s. Beyond it the answer is 429."""
    max_picture_streams: int = Field(default=2, ge=0)
    """Streams among them that send pictures, each with a process of its own that keeps a core busy."""
    max_picture_mb: float = Field(default=1, gt=0, le=4)
    """Largest picture of a stream."""
    max_picture_pixels: int = Field(default=2_100_000, gt=0)
    """Most pixels of a picture; 1080p has 2.07 million."""
    picture_memory_mb: float = Field(default=1_500, gt=0)
    """Memory of a process that looks at pictures, bounded by the kernel."""
    stream_idle_s: float = Field(default=60, gt=0)
    """A stream in which no complete frame came for so long is ended."""
    max_video_mb: float = Field(default=100, gt=0)
    """Largest upload of /v1/refine/video."""
    max_video_s: float = Field(default=60, gt=0)
    """Longest video."""
    max_video_frames: int = Field(default=7_200, gt=0)
    """Most frames of a video: 60 s at 120 fps."""
    max_video_pixels: int = Field(default=9_000_000, gt=0)
    """Largest picture of a video; 4K has 8.3 or 8.8 million pixels."""
    video_memory_mb: float = Field(default=3_000, gt=0)
    """Memory of the process that decodes a video, bounded by the kernel; 4K takes 1,700 (1080p 550)."""
    video_timeout_s: float = Field(default=300, gt=0)
    """How long one video may take; MediaPipe needs 20-30 ms a frame at 1080p, so a minute at 60 fps takes about 100 s."""
    estimator: str = "mediapipe"
    """What finds the person in a video, by name."""
    estimator_model: str | None = None
    """The estimator's model or file for /v1/refine/video; None is the usual one."""
    estimator_smoothing: Literal["mediapipe", "none"] = "mediapipe"
    """MediaPipe's filters over time, or none (blazepose only)."""
    estimator_looks: int = Field(default=1, ge=1, le=2)
    """2 looks at the mirrored picture, too (blazepose only)."""
    estimator_people: int = Field(default=1, ge=1, le=16)
    """Most people to follow in a video; several with blazepose only."""


class ModelName(BaseModel):
    name: str
    version: str


class RefineBody(BaseModel):
    """Poses in metres in the virtual camera frame, as MediaPipe's world landmarks are (x right, y down, smaller z nearer)."""

    model_config = ConfigDict(extra="forbid")

    poses: list[Pose] = Field(min_length=1, description="N × 17 × 3 (COCO) or N × 33 × 3 (MediaPipe); one pose too")
    visibility: list[list[float]] | None = Field(default=None, description="N × 17 or N × 33, 0 … 1, as the poses")
    image_points: list[list[list[float]]] | None = Field(
        default=None, description="N × 17|33 × 2, pixels; improves some models"
    )
    sequence: bool = Field(default=False, description="the poses are consecutive frames of one clip")
    fps: FrameRate | None = Field(default=None, description="frames per second of that clip; 30 if not said")
    keep_bones: bool = Field(
        default=True,
        description="of a clip: each bone gets one length, where the model does that; false for a part of a clip whose "
        "whole is given its lengths later",
    )
    bone_lengths: list[float] | None = Field(
        default=None,
        min_length=len(BONES),
        max_length=len(BONES),
        description="those lengths, metres, in the order of `refiner.skeleton.BONES`; if not said, the medians in this clip",
    )


class RefineResult(BaseModel):
    refined: list[Pose] = Field(description="N × 17 × 3, metres, virtual camera frame")
    confidence: list[list[float]] = Field(description="N × 17, probability that the joint's depth is within 5 cm")
    view_angle: list[float] = Field(description="N, degrees, 0 frontal – 90 profile")
    model: ModelName
    bone_lengths: list[float] | None = Field(
        default=None,
        description="of a clip, where the model keeps bones: medians of their lengths before they were kept, metres",
    )


class VideoResult(RefineResult):
    """One row for each frame in which a person was found."""

    person: list[int] = Field(description="number of the person, from 0; their rows follow each other")
    frame: list[int]
    timestamp_us: list[int]
    notes: list[str] = Field(
        description="what one should know of the video, a sentence each: that pictures are damaged, another recording follows "
        "that is not read, …"
    )


class Problem(BaseModel):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    error: str = Field(description="the detail, where clients of the Open Inference Protocol look for it")


class Refused(BaseModel):
    version: str
    reason: str


class SequenceInfo(BaseModel):
    """What is done to the poses of a clip after each was refined by itself."""

    smoothing_s: float = Field(description="sigma of a Gaussian over time, seconds")
    constant_bones: bool = Field(description="each bone gets one length in a clip")


class Info(BaseModel):
    """Who answers."""

    model: ModelName
    sequence: SequenceInfo
    run_id: str | None
    tags: dict[str, str] = Field(description="of the registry's version: the git commit, the dataset's fingerprint, …")
    source: str
    device: str
    runtime: Literal["onnxruntime", "pytorch"]
    loaded_at: str = Field(description="ISO 8601, UTC")
    registry: Literal["reachable", "unreachable", "not used"]
    refused: list[Refused] = Field(description="versions that the alias named and that were not taken, and why")
    input_drift: dict[str, float] | None = Field(
        description="population stability index of the last 2,048 poses against the training set's, by group of features: "
        "below 0.1 they are alike, above 0.25 they are not; null where the model does not say what it was trained on, or "
        "fewer than 500 poses came in"
    )


class Health(BaseModel):
    status: Literal["ok"]
