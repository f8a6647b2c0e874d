from tpo_core.train.progress_line import Follower, clock, count, format_row

ROW = {
    "step": 120, "steps": 400, "total": 1.2345, "kind/region": 1.5, "loss/lm": 0.4, "loss/region": 0.5,
    "grad_norm": 0.9, "lr/lora": 2e-5, "lr/region_head": 1e-3, "samples_per_s": 23.04, "tokens_per_s": 8123.0,
    "data_wait": 0.021, "memory_bytes": 3 * 2**29, "eta_s": 80.2, "skipped": 0,
}  # fmt: skip


def test_a_row_reads_as_one_line():
    assert format_row("vision_task", ROW) == (
        "vision_task  [###.......] 120/400  30%  loss 1.234 (lm 0.4 region 0.5)  lr 1.0e-03  gn 0.9"
        "  23 samples/s  8.1k tokens/s  wait 2%  mem 1.5 GiB  eta 1:20"
    )


def test_mfu_is_told_where_it_is_known():
    assert "tokens/s  mfu 41%  wait" in format_row("s", ROW | {"mfu": 0.412})


def test_count():
    assert [count(n) for n in (0, 812.4, 4123, 23456, 123456, 1.24e6)] == ["0", "812", "4.1k", "23k", "123k", "1.2M"]


def test_skipped_updates_and_windows_without_a_loss_are_told():
    row = {key: value for key, value in ROW.items() if key not in ("total", "grad_norm")} | {"skipped": 3}
    assert "  loss not finite  " in format_row("s", row)
    assert format_row("s", row).endswith("skipped 3")


def test_clock():
    assert [clock(s) for s in (0, 59.6, 80, 725, 11045)] == ["0:00", "1:00", "1:20", "12:05", "3:04:05"]


def test_follower_echoes_new_complete_lines_only(tmp_path):
    path, late, seen = tmp_path / "a", tmp_path / "b", []
    path.write_text("old\n")
    with Follower({path: str.upper, late: str}, seen.append) as follower:
        follower.poll()
        with path.open("a") as file:
            file.write("one\nhal")
        follower.poll()
        assert seen == ["ONE"]
        with path.open("a") as file:
            file.write("f\n")
        late.write_text("two\n")
    assert seen == ["ONE", "HALF", "two"]


def test_follower_goes_on_from_the_new_end_of_a_file_that_shrank(tmp_path):
    path, seen = tmp_path / "a", []
    path.write_text("1\n2\n3\n")
    with Follower({path: str}, seen.append) as follower:
        path.write_text("1\n")
        follower.poll()
        with path.open("a") as file:
            file.write("2 again\n")
    assert seen == ["2 again"]


def test_follower_reads_whole_lines_of_a_file_that_shrank_and_grew_between_two_looks(tmp_path):
    path, seen = tmp_path / "history", []
    path.write_text("first line\n")
    follower = Follower({path: str}, seen.append)
    path.write_text("a\nanother, longer line\nlast\n")
    follower.poll()
    assert seen == ["another, longer line", "last"]
