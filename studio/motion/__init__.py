"""What they dance: tracks of joint rotations within human limits, feet planted on the floor.

tracks         a motion, at any moment
limbs          arms, legs and feet out of where their bones point
choreography   drawn dances, by genre (`manners`): `footwork` first, then the `upper_body`
contacts       where the floor is under a captured motion
sources        windows of AIST++'s own sequences, as they are or `varied`
retarget       these on a body of other proportions
"""
