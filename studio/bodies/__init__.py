"""Who dances: bodies out of a seed, with clothes, face and hair, as skinned meshes whose joints are the truth.

looks      proportions, clothes, hair and colours
body       what every body has
drawn      a drawn dancer: `flesh` and `clothes` as implicit surfaces (`implicit`), meshed (`meshing`)
person     a MakeHuman figure (`makehuman`), dressed (`dressing`) in layers (`layers`, `cuts`, `garments`, `heads`, `hair`)
"""
