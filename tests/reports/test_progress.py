"""Progress: one plain line now and then, with what is left to do."""
from swinmpi.reports.progress import LOG_SECONDS, Progress, clock


def test_a_line_says_how_far_how_fast_and_how_long():
    with Progress(10, "updates", start=4) as progress:
        progress.began -= 20  # as if it had begun then
        progress.advance(2)
        assert progress.line("loss 0.5").startswith(
            "6/10 updates, 0.1/s, 0:20 so far, about 0:40 to go, loss 0.5")


def test_a_log_gets_a_line_every_half_minute(capsys):
    with Progress(10, "images") as progress, Progress(10, "images", enabled=False) as silent:
        progress.advance()
        assert capsys.readouterr().out == ""
        for each in (progress, silent):
            each.logged -= LOG_SECONDS
            each.advance()
            each.advance()
        told = capsys.readouterr().out
        assert told.count("\n") == 1 and told.startswith("2/10 images")


def test_without_any_rate_there_is_no_guess():
    assert "about ? to go" in Progress(10, "images").line()


def test_clock():
    assert ([clock(seconds) for seconds in (0, 59.6, 3599, 3600, 90061)]
            == ["0:00", "1:00", "59:59", "1:00:00", "25:01:01"])
