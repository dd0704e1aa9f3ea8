"""Run by Blender: opens a BVH or GLB file and prints where its armatures' joints are at some moments, as JSON.

blender --background --python blender_joints.py -- FILE SECONDS …
"""

import builtins
import json
import sys

import bpy
import numpy

# Debian's Blender 3.4 is older than its Python 3.11 and NumPy: its importers use names that those have dropped
numpy.bool = bool
_open = builtins.open
builtins.open = lambda file, mode="r", *args, **kwargs: _open(file, mode.replace("U", ""), *args, **kwargs)

path, *moments = sys.argv[sys.argv.index("--") + 1 :]
bpy.ops.wm.read_factory_settings(use_empty=True)
if path.endswith(".bvh"):
    bpy.ops.import_anim.bvh(filepath=path, global_scale=0.01, axis_up="Y", update_scene_fps=True)
else:
    bpy.ops.import_scene.gltf(filepath=path)
scene = bpy.context.scene
armatures = sorted((o for o in bpy.data.objects if o.type == "ARMATURE"), key=lambda o: o.name)
joints = {}
for moment in moments:
    frame = float(moment) * scene.render.fps + (1 if path.endswith(".bvh") else 0)  # its first frame is number 1
    scene.frame_set(int(frame), subframe=frame - int(frame))
    joints[moment] = [
        {bone.name: list(armature.matrix_world @ bone.head) for bone in armature.pose.bones} for armature in armatures
    ]
print("JOINTS " + json.dumps(joints))
