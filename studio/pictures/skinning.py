"""Skinning: the mesh follows the bones."""

import numpy as np
from scipy.spatial.transform import Rotation

from studio.kernels import fast


def dual_quaternions(turned: np.ndarray, placed: np.ndarray, bind: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(24, 8) from the bind pose to a pose, for `skin`."""
    rotation = turned @ np.swapaxes(bind[0], -1, -2)
    translation = placed - np.einsum("bij,bj->bi", rotation, bind[1])
    x, y, z, w = Rotation.from_matrix(rotation).as_quat().T
    tx, ty, tz = translation.T
    dual = 0.5 * np.stack(
        [-tx * x - ty * y - tz * z, tx * w + ty * z - tz * y, -tx * z + ty * w + tz * x, tx * y - ty * x + tz * w], 1
    )
    return np.concatenate([np.stack([w, x, y, z], 1), dual], axis=1)


@fast
def skin(vertices, normals, bones, weights, dq, out_v, out_n):
    """Dual quaternion skinning (Kavan et al. 2008): unlike blended matrices it keeps a twisted or bent limb's volume."""
    for v in range(vertices.shape[0]):
        first = bones[v, 0]
        q = np.zeros(8, np.float64)
        for i in range(4):
            w = weights[v, i]
            if w < 1e-3:
                continue
            b = bones[v, i]
            dot = dq[b, 0] * dq[first, 0] + dq[b, 1] * dq[first, 1] + dq[b, 2] * dq[first, 2] + dq[b, 3] * dq[first, 3]
            if dot < 0:
                w = -w
            for c in range(8):
                q[c] += w * dq[b, c]
        s = 1.0 / np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
        w, x, y, z = q[0] * s, q[1] * s, q[2] * s, q[3] * s
        ew, ex, ey, ez = q[4] * s, q[5] * s, q[6] * s, q[7] * s
        tx = 2 * (-ew * x + ex * w - ey * z + ez * y)
        ty = 2 * (-ew * y + ex * z + ey * w - ez * x)
        tz = 2 * (-ew * z - ex * y + ey * x + ez * w)
        r00, r01, r02 = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
        r10, r11, r12 = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
        r20, r21, r22 = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
        a, b2, c2 = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        out_v[v, 0] = r00 * a + r01 * b2 + r02 * c2 + tx
        out_v[v, 1] = r10 * a + r11 * b2 + r12 * c2 + ty
        out_v[v, 2] = r20 * a + r21 * b2 + r22 * c2 + tz
        a, b2, c2 = normals[v, 0], normals[v, 1], normals[v, 2]
        out_n[v, 0] = r00 * a + r01 * b2 + r02 * c2
        out_n[v, 1] = r10 * a + r11 * b2 + r12 * c2
        out_n[v, 2] = r20 * a + r21 * b2 + r22 * c2
