"""A small synthetic AIST++: dancers filmed by nine cameras, with exact truth.

    rig        the skeleton, SMPL's tree
    curves     smooth transitions, and tracks of rotations
    kernels    how inner loops are compiled
    cameras    nine cameras laid out as AIST++'s
    bodies/    who dances: skinned meshes with clothes, drawn or MakeHuman's
    motion/    what they dance: drawn choreographies, and real sequences on other bodies
    mocap      motion files as AIST++'s keypoints: read by `bvh` and `deepmimic` into a `capture`
    pictures/  what cameras see of them: rooms and the rasteriser
    dataset/   sequences by name, seed and split; videos and annotations in AIST++'s layout

Everything is a function of a seed and of numbers, never of time or of the machine. `rayjobs.studio` spreads it over a cluster.
"""

from refiner.extras import require

require("the studio", "numba", "skimage")
