import numpy as np
import pytest

from deploy.errors import DeployError
from deploy.graph.profile import Bias
from deploy.targets import ACCELERATORS, DEFAULT_TARGET, PROFILES, find_profile


def test_profiles_are_found_by_their_own_name() -> None:
    assert all(find_profile(name).name == name for name in PROFILES)
    assert find_profile(DEFAULT_TARGET) == PROFILES["ort"]


def test_find_profile_of_no_target_names_those_there_are() -> None:
    with pytest.raises(DeployError, match="no target 'npu': choose one of ort, ort-avx2"):
        find_profile("npu")


@pytest.mark.parametrize("name", ACCELERATORS)
def test_accelerator_says_what_it_is_and_can_be_served(name: str) -> None:
    accelerator = ACCELERATORS[name]
    assert accelerator.name == name
    assert accelerator.runtime
    assert accelerator.source
    assert (accelerator.profile is None) == (accelerator.hand_over is not None)
    assert accelerator.profile is None or accelerator.profile.name == name
    assert accelerator.also_for <= PROFILES.keys() - {name}


@pytest.mark.parametrize("name", PROFILES)
def test_profile_is_consistent(name: str) -> None:
    profile = PROFILES[name]
    assert 0 < profile.weight_max <= 127
    assert not profile.symmetric or profile.activation is np.int8
    # an integer bias that is added to the accumulator needs the accumulator's scale
    assert profile.bias is not Bias.INT8 or profile.power_of_two
