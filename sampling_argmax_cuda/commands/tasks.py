"""The tasks by the names of the command line: each a module that is trained and its data."""

from ..tasks.associative.task import BottomUpData, BottomUpPose
from ..tasks.coco.task import CocoData, CocoPose
from ..tasks.h36m.task import H36mData, H36mPose
from ..tasks.keypointnet.task import KeypointNetData, PointCloudKeypoints
from ..tasks.keypoints.task import KeypointData, KeypointPose
from ..tasks.mpii.task import MpiiData, MpiiPose
from ..tasks.mtfl.task import MtflData, MtflLandmarks
from ..tasks.oct.task import OctData, RetinalSurfaces
from ..tasks.skeleton.task import SkeletonData, SkeletonMerger

TASKS = {
    "associative": (BottomUpPose, BottomUpData),
    "coco": (CocoPose, CocoData),
    "h36m": (H36mPose, H36mData),
    "keypointnet": (PointCloudKeypoints, KeypointNetData),
    "keypoints": (KeypointPose, KeypointData),
    "mpii": (MpiiPose, MpiiData),
    "mtfl": (MtflLandmarks, MtflData),
    "oct": (RetinalSurfaces, OctData),
    "skeleton": (SkeletonMerger, SkeletonData),
}
