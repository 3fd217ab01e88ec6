"""One picture of one face, painted from back to front."""

import numpy as np
from numpy.typing import NDArray

from vaehpc.images.faces import features, hair, head, scene, worn
from vaehpc.images.faces.canvas import blank_frame
from vaehpc.images.faces.traits import Face


def draw_face(face: Face) -> NDArray[np.uint8]:
    """(218, 178, 3) uint8 RGB; the same face gives the same bytes."""
    body = blank_frame(face.pose)
    canvas = body.turned()
    scene.draw_background(body, face.scene)
    hair.draw_back_hair(canvas, face)
    head.draw_neck(body, face)
    worn.draw_clothes(body, face)
    worn.draw_necklace(body, face)
    head.draw_ears(canvas, face)
    head.draw_head(canvas, face)
    features.draw_nostrils(canvas, face)
    features.draw_beard(canvas, face)
    features.draw_mouth(canvas, face)
    features.draw_eyes(canvas, face)
    features.draw_brows(canvas, face)
    hair.draw_front_hair(canvas, face)
    worn.draw_glasses(canvas, face)
    worn.draw_hat(canvas, face)
    worn.draw_earrings(canvas, face)
    return scene.photograph(body, face)
