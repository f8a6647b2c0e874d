from tpo_core.evaluation.latency import latency


class Slow:
    """Takes as many seconds as the example says, and says what it was asked."""

    def __init__(self):
        self.now_s, self.asked = 0.0, []

    def chat(self, examples, max_new_tokens):
        [example] = examples
        self.asked.append(example)
        self.now_s += example


def test_requests_are_asked_alone_at_equal_distances_after_one_that_is_not_timed():
    model = Slow()
    found = latency(model, "test", [1.0, 9.0, 2.0, 9.0, 3.0, 9.0], 3, 64, clock=lambda: model.now_s)
    assert model.asked == [1.0, 1.0, 2.0, 3.0]
    assert found == {"test/latency/median_s": 2.0, "test/latency/p95_s": 2.9}


def test_fewer_examples_than_requests_and_none():
    model = Slow()
    assert latency(model, "val", [4.0], 3, 64, clock=lambda: model.now_s)["val/latency/p95_s"] == 4.0
    assert latency(model, "val", [], 3, 64) == {}
    assert latency(model, "val", [4.0], 0, 64) == {}
