"""Errors of the load-testing harness. All carry the offending values.

HarnessError
├── WrongOption      a value on the command line cannot be used
├── BrokenResults    a file does not hold results that this version reads
├── NoServer         nobody answers at the address, or not as an OpenAI-compatible server does
└── NothingAnswered  the server is there, and not one request was answered
"""


class HarnessError(Exception):
    """Root of the harness's errors."""

    exit_code = 1


class WrongOption(HarnessError):
    """`problem` continues the sentence that the option's name begins."""

    exit_code = 2

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option
        self.problem = problem


class BrokenResults(HarnessError):
    """Results are written by `easel bench URL --json FILE`."""

    exit_code = 2

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}; write results with `easel bench URL --json FILE`.")
        self.path = path
        self.problem = problem


class NoServer(HarnessError):
    """No load was made."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(f"{url}: {problem}; is `easel serve` running there?")
        self.url = url
        self.problem = problem


class NothingAnswered(HarnessError):
    """There is nothing to report but the first failure."""

    def __init__(self, url: str, requests: int, first_failure: str) -> None:
        super().__init__(f"{url}: none of {requests} requests was answered; the first: {first_failure}")
        self.url = url
        self.requests = requests
        self.first_failure = first_failure
