"""Drawn scenes of VOC's 20 classes: a data set for where there is no VOC2012."""

from deploy.calibration.scenes.dataset import draw_scene, scene_name, write_scenes

__all__ = ["draw_scene", "scene_name", "write_scenes"]
