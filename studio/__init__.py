"""A small synthetic AIST++: procedural dancers, filmed by nine cameras, with exact truth.

    rig      the skeleton, SMPL's tree
    looks    proportions, clothes, hair and colours, drawn from a seed
    implicit smooth surfaces out of rounded cones and ellipsoids, and their meshes
    body     a dancer: all of these together, a skinned mesh and the joints that are the truth
    motion   choreographies: dense tracks of joint rotations within human limits, feet planted on the floor
    retarget the same tracks out of AIST++'s own keypoints: real motion on a drawn body
    cameras  nine cameras laid out as AIST++'s
    room     the background of each camera, drawn once
    render   the rasteriser: a dancer into a picture of the room
    dataset  sequences by name, seed and split; videos and annotations in AIST++'s layout

Everything is a function of a seed and of numbers, never of time or of the machine. `rayjobs.studio` spreads it over a cluster.
"""

from refiner.extras import require

require("the studio", "numba", "skimage")
