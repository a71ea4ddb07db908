from benchmarks.against_peers import once


def test_what_is_finished_is_not_measured_again_under_the_same_settings(tmp_path):
    measured = []

    def measure():
        measured.append(None)
        return {"linear probe %": 90.0 + len(measured)}

    path = tmp_path / "ours.json"
    assert once(path, {"seconds": 5.0}, measure) == {"linear probe %": 91.0}
    assert once(path, {"seconds": 5.0}, measure) == {"linear probe %": 91.0}
    assert once(path, {"seconds": 9.0}, measure) == {"linear probe %": 92.0}
    assert len(measured) == 2
