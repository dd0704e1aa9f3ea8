"""What cameras see of them: a software renderer that keeps to the truth to a fraction of a pixel.

light      what lights a room, and how a camera turns light into values
room       the background of each camera, drawn once: `raycast`, with `surfaces`
skinning   the mesh follows the bones
raster     vertices and triangles into z-buffers, shadows onto the floor
shading    light on a body's `materials`
renderer   all of these: a dancer into a picture of the room
stage      a camera's picture of the room, and the dancer in it
footage    what a real camera does to a picture
"""
