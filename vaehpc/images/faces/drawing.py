"""One picture of one face, painted from back to front."""

import numpy as np
from numpy.typing import NDArray

from vaehpc.images.faces import eyes, features, hair, head, scene, worn
from vaehpc.images.faces.canvas import blank_frame
from vaehpc.images.faces.traits import Face


def draw_face(face: Face) -> NDArray[np.uint8]:
    """(218, 178, 3) uint8 RGB; the same face gives the same bytes."""
    body, front = blank_frame(face.pose)
    scene.draw_background(body, face.scene)
    hair.draw_back_hair(front, face)
    head.draw_neck(body, face)
    head.draw_double_chin(front, face)
    worn.draw_clothes(body, face)
    worn.draw_necklace(body, face)
    head.draw_ears(front, face)
    head.draw_head(front, face)
    features.draw_nostrils(front, face)
    features.draw_beard(front, face)
    features.draw_mouth(front, face)
    eyes.draw_eyes(front, face)
    eyes.draw_brows(front, face)
    hair.draw_front_hair(front, face)
    worn.draw_glasses(front, face)
    worn.draw_hat(front, face)
    worn.draw_earrings(front, face)
    return scene.photograph(body, face)
