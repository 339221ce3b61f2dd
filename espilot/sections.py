"""The sections of the settings: one frozen dataclass each.

Each field's `doc` is the sentence that `etc/espilot.toml` prints for it; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def setting(default: Any, doc: str) -> Any:
    """A dataclass field with its one-sentence description."""
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class PayloadConfig:
    """[payload]: how the payload is started and restarted."""

    command: str = setting("", "Command of a payload that speaks a dialect of the channel.")
    exec: str = setting("", "Command template run once per range, for payloads without a protocol.")
    ranges: str = setting(
        "channel",
        "How a payload gets its ranges: `channel`, it asks; `file`, the command is started for "
        "each file of ranges, whose path stands where {ranges} is.",
    )
    outputs: str = setting(
        "reported",
        "How a range is known to be done: `reported` over the channel; or by its files alone, when "
        "they were `renamed` to their names, or also `closed` after writing.",
    )
    executor: str = setting("generic", "How event jobs are run; only `generic` is known.")
    setup: str = setting(
        "", "Command that runs the transformation of a job, which it gets as further arguments."
    )
    container: str = setting(
        "",
        "Command that runs the payload in a container, with {mount} and {env} where its places and "
        "variables go: apptainer exec --bind {mount} IMAGE.",
    )
    cores: int = setting(1, "Processes that work at the same time.")
    output_limit_bytes: int = setting(500 * 10**9, "Largest single output file.")
    stdout_limit_bytes: int = setting(2 * 2**30, "Largest stdout or stderr of the payload.")
    stdout_over: str = setting(
        "cut", "At that limit: `cut` keeps head and tail and goes on, `end-job` ends the job."
    )
    hang_s: float = setting(7200.0, "No message and no CPU use for so long means: hung.")
    range_hang_factor: float = setting(
        10.0, "A range in work for so many times the median duration means: its client hangs."
    )
    range_hang_floor_s: float = setting(600.0, "But not before so long.")
    range_hang_cap_s: float = setting(
        21600.0, "And so long in any case; 0 means that a range may take for ever."
    )
    restarts: int = setting(
        5, "Starts within restart_window_s after which the payload is given up."
    )
    restart_window_s: float = setting(600.0, "Window for counting restarts.")
    term_grace_s: float = setting(30.0, "From SIGTERM to SIGKILL when the payload is stopped.")
    exit_grace_s: float = setting(
        1800.0, "How long the payload may live after it heard that no more ranges come."
    )
    max_held: int = setting(64, "Ranges that one client may hold at once.")
    record: str = setting(
        "", "File that gets what goes over the channel (espilot run --record); empty: none."
    )
    record_limit_bytes: int = setting(2**30, "Largest size of that file; then it is cut.")


@dataclass(frozen=True, slots=True)
class PackingConfig:
    """[packing]: when outputs become an archive; whatever limit is reached first."""

    max_ranges: int = setting(500, "Ranges in one archive.")
    max_bytes: int = setting(2 * 10**9, "Bytes in one archive.")
    max_age_s: float = setting(600.0, "Longest time that an output waits to be packed.")
    risk_cpu_min: float = setting(
        120.0, "CPU minutes of work in outputs that wait to be packed; 0 means no limit."
    )
    unpack: bool = setting(
        False, "When a local run is finished, unpack all outputs below WORKDIR/outputs."
    )


@dataclass(frozen=True, slots=True)
class StageoutConfig:
    """[stageout]: uploads."""

    parallel: int = setting(2, "Uploads at the same time.")
    waiting_bytes: int = setting(
        4 * 10**9,
        "Archives that wait for the storage, in bytes, beyond which no more are made; with as much "
        "again in outputs no ranges are handed out; 0 means no limit.",
    )
    attempts: int = setting(3, "Tries of one upload within one stage-out.")
    retry_min_s: float = setting(1.0, "Shortest pause between two tries.")
    retry_max_s: float = setting(60.0, "Longest pause between two tries.")
    give_up_after: int = setting(
        2, "Failed stage-outs in a row after which no more ranges are taken."
    )
    on_trouble: str = setting(
        "finish-current",
        "Ranges in work in storage trouble: `finish-current`, or `abort-current` ends the payload.",
    )
    storage_wait_s: float = setting(
        600.0, "How long clients wait in storage trouble before they hear that no more ranges come."
    )
    circuit_failures: int = setting(
        3, "Failed uploads in a row after which an endpoint is passed over where there is another."
    )
    circuit_open_s: float = setting(
        300.0, "How long an endpoint is passed over before one upload probes it."
    )
    log_bytes: int = setting(
        64 * 2**20, "Most bytes of logs in the log archive of a job, before compression."
    )
    log_wait_s: float = setting(
        600.0, "Longest wait for the log archive at the end of an event job, which fails without."
    )
    logs_every_s: float = setting(
        600.0,
        "While an event job runs its logs are shipped so often to endpoints with the activity pls, "
        "if there is one; 0 means never.",
    )

    @property
    def aborts_current(self) -> bool:
        """Whether ranges in work are given up in storage trouble."""
        return self.on_trouble == "abort-current"


@dataclass(frozen=True, slots=True)
class StageinConfig:
    """[stagein]: input files, and what is unpacked of archives."""

    access: str = setting(
        "copy", "How inputs are read: `copy` brings them here, `direct` names their address."
    )
    parallel: int = setting(4, "Downloads at the same time.")
    attempts: int = setting(3, "Tries of one download.")
    cache: str = setting(
        "", "Directory that keeps copies of inputs for later jobs of this user; empty: none."
    )
    cache_bytes: int = setting(
        100 * 10**9, "Most bytes in the cache; what was used least lately goes first."
    )
    archive_bytes: int = setting(
        100 * 10**9, "Most bytes that the archives of a job may unpack to."
    )
    archive_files: int = setting(1_000_000, "Most files in the archives of a job.")


@dataclass(frozen=True, slots=True)
class TransferConfig:
    """[transfer]: how long one transfer may take, and in which parts it goes."""

    connect_s: float = setting(30.0, "Longest time to connect.")
    idle_s: float = setting(60.0, "Longest time without a byte.")
    base_s: float = setting(400.0, "Longest transfer, beside the time for its bytes.")
    bytes_per_s: float = setting(1e6, "Rate at which the time for the bytes is reckoned.")
    longest_s: float = setting(10800.0, "Longest transfer of any size.")
    slow_after_s: float = setting(60.0, "When the rate of a transfer is first judged.")
    slow_bytes_per_s: float = setting(
        20e3, "A transfer that is slower on average is broken off; 0 lets every rate pass."
    )
    part_bytes: int = setting(32 * 2**20, "Larger files go to S3 in parts of this size.")
    part_threads: int = setting(
        2, "Parts that are sent to a storage at the same time; more for one that is far away."
    )


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """[endpoints.NAME]: a storage element; the one named storage tells of the URL in `storage`."""

    url: str = setting("", "Directory or URL of the storage element: file, s3, davs, https, root.")
    id: int = setting(1, "Its number for the event server (objstoreID).")
    scope: str = setting(
        "", "Files lie in SCOPE/ab/cd/NAME, where Rucio looks; empty: all in one directory."
    )
    path_convention: int = setting(
        1000, "What merge jobs are told of the paths there (pathConvention); 1000: scope transient."
    )
    activities: tuple[str, ...] = setting(
        (), "What it is for: es_events, es_failover, pw, es_events_read, pl, pls."
    )
    endpoint_url: str = setting("", "For S3: http or https address of the store.")
    region: str = setting("us-east-1", "For S3: region of the bucket.")
    signer: str = setting(
        "", "For S3 without keys: address of a service that signs URLs (getPresignedURL)."
    )
    signer_keys: str = setting("", "Names of the PUBLIC,PRIVATE keys that it signs with.")
    credentials: str = setting(
        "",
        "File (mode 600) with keys, token or proxy; or env:S3_ACCESS_KEY,S3_SECRET_KEY with names "
        "of environment variables; or instance, the rights of the machine; or instance:URL.",
    )
    profile: str = setting("default", "For S3: section of the file.")
    ca_file: str = setting("", "File or directory of accepted certificate authorities.")
    proxy: str = setting("", "Address of an HTTP proxy; those of the environment do not count.")
    group_readable: bool = setting(False, "For directories: let the group read the files.")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """[server]: the event server."""

    url: str = setting("", "Address of the server; empty in a local run, which brings its own.")
    timeout_s: float = setting(120.0, "Longest duration of one call.")
    connect_timeout_s: float = setting(100.0, "Longest time to connect.")
    heartbeat_s: float = setting(600.0, "Pause between two heartbeats of an event job.")
    retry_min_s: float = setting(1.0, "Shortest pause after a failed call.")
    retry_max_s: float = setting(60.0, "Longest pause after a failed call.")
    site: str = setting("ESPILOT", "Name of the queue (computing site) in job requests.")
    label: str = setting("managed", "Which jobs are asked for (prodSourceLabel).")
    resource_type: str = setting("", "Which jobs are asked for: SCORE, MCORE, ...; empty: any.")
    job_type: str = setting("", "Which type of jobs is asked for; empty: any.")
    report_max_ranges: int = setting(1000, "Ranges in one report.")
    lost_after_s: float = setting(
        7200.0, "Without a heartbeat for so long the server gives a job up; tries are closer."
    )
    dialect: str = setting("auto", "Dialect of the server: legacy, v1, or auto to find out.")
    x509_proxy: str = setting("", "Proxy file; empty takes the one that X509_USER_PROXY names.")
    ca: str = setting("", "Directory or bundle of authorities; empty takes X509_CERT_DIR's.")
    token_file: str = setting("", "File with a bearer token; empty takes OIDC_AUTH_TOKEN's.")
    quirks: tuple[str, ...] = setting(
        (), "Faults of the built-in server in a local run, as in espilot server --quirk."
    )
    token_origin: str = setting("", "VO:ROLE of the token; empty takes OIDC_AUTH_ORIGIN.")


@dataclass(frozen=True, slots=True)
class HarvesterConfig:
    """[harvester]: beside Harvester, with `harvester:DIRECTORY` as the address of the server."""

    config: str = setting(
        "", "Harvester's own configuration file, for the names of the shared files."
    )
    output: str = setting(
        "es_output", "What is reported: es_output, a file for each range, or zip_output, archives."
    )
    jobs: int = setting(1, "Jobs that are taken one after the other.")
    kill_at_end: bool = setting(
        False, "Write the kill file after the last job, so that Harvester ends the batch job."
    )
    first_input_only: bool = setting(
        False, "Leave the first input only on a job's command line; for jumbo jobs."
    )
    poll_s: float = setting(5.0, "Pause between two looks for what Harvester has to bring.")
    heartbeat_s: float = setting(
        300.0, "Longest pause between two heartbeats; a third of the queue's worker_heartbeat."
    )
    job_wait_s: float = setting(3600.0, "Longest wait for a job; then the run ends.")
    ranges_wait_s: float = setting(7200.0, "Longest wait for ranges; then the job ends.")
    ask_again_s: float = setting(
        60.0, "A request for ranges that is gone for so long without an answer is made again."
    )
    lost_s: float = setting(
        30.0, "A report that is gone for so long without being booked is written again."
    )
    gone_s: float = setting(
        300.0, "The directory missing for so long means that Harvester has given up the worker."
    )
    request_max_ranges: int = setting(8192, "Ranges in one request.")
    report_max_ranges: int = setting(10000, "Ranges in one report.")


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """[limits]: of the whole pilot."""

    workdir_bytes: int = setting(
        16336 * 2**20, "Largest size of the work directory, outputs and logs included."
    )
    workdir_grace: float = setting(0.2, "Part of that limit by which it may be exceeded.")
    free_start_bytes: int = setting(
        2 * 10**9, "Free space on the disk of the work directory that a start needs."
    )
    free_bytes: int = setting(
        10**9, "With less free space no ranges are handed out, with half of it the job ends."
    )
    memory_bytes: int = setting(
        0, "Most memory (PSS) of the payload's processes together; 0 means no limit."
    )
    memory_every_s: float = setting(60.0, "Pause between two measurements of the PSS.")
    processes: int = setting(0, "Most processes of the payload; 0 means no limit.")
    control_groups: str = setting(
        "auto", "A control group for each payload where that is ours to make: auto, or no."
    )
    no_progress_s: float = setting(
        43200.0, "With ranges in hand, none ending for so long ends the payload; 0 means never."
    )
    wall_s: float = setting(0.0, "Longest run; 0 means no limit.")
    live_ranges: int = setting(4000, "Most ranges on the node at the same time.")
    work_ahead_s: float = setting(2.0, "Seconds of work that are fetched ahead.")
    silent_s: float = setting(
        15.0, "A process of the pilot that gives no sign of life for so long is replaced."
    )
    role_restarts: int = setting(
        5, "Starts of a process of the pilot within role_window_s after which the run is given up."
    )
    role_window_s: float = setting(60.0, "Window for counting the starts of the pilot's processes.")
    settle_s: float = setting(
        1800.0, "Longest time without progress at the end of a job; then the run is left as it is."
    )
    boot_id_file: str = setting(
        "/proc/sys/kernel/random/boot_id",
        "File whose content changes when the machine starts anew; then the queue is not trusted.",
    )


@dataclass(frozen=True, slots=True)
class DrainConfig:
    """[drain]: an early end in good order."""

    grace_s: float = setting(30.0, "From SIGTERM, SIGQUIT or SIGXCPU to the KILL that may follow.")
    notice_s: float = setting(60.0, "The same from SIGUSR1 or SIGUSR2.")
    interrupt_s: float = setting(150.0, "The same from SIGINT (Ctrl-C).")
    file: str = setting(
        "",
        "A file whose existence means: drain, by the duration or Unix time in it, if there is one; "
        "empty: WORKDIR/drain, which is removed when it was read.",
    )


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """[jobs]: which jobs are taken from a server that is not our own."""

    at_most: int = setting(0, "Jobs after which the run ends; 0 takes jobs for ever.")
    requests: int = setting(
        0, "Requests in a row without a job after which the run ends; 0 asks for ever."
    )
    pause_min_s: float = setting(
        5.0, "Pause after a request without a job, or a job without any finished range."
    )
    pause_max_s: float = setting(300.0, "That pause doubles up to this.")
    failures: int = setting(
        0, "Failed requests in a row after which the run ends; 0 tries for ever."
    )
    definition: str = setting(
        "", "File in which a factory may leave the definition of the next job, JSON or a form."
    )
    pushed: bool = setting(False, "Only jobs left in that file are taken; the server is not asked.")
    pushed_wait_s: float = setting(3600.0, "Longest wait for that file; then there is no job.")
    floor_s: float = setting(
        0.0, "No further job is taken when the run has lasted so long; 0: however long it lasts."
    )
    least_left_s: float = setting(
        0.0, "No further job is taken when less time is left until a known end."
    )


@dataclass(frozen=True, slots=True)
class IdentityConfig:
    """[identity]: by which names factory and server know this pilot."""

    node: str = setting("", "Name of the node; empty takes the machine's.")
    pilot_id: str = setting("", "The factory's name of the pilot, often an address of its log.")
    batch_id: str = setting("", "Number of the batch job.")
    scheduler_id: str = setting("", "Name of the scheduler that sent the pilot.")
    harvester_id: str = setting("", "Name of the Harvester that sent the pilot.")
    worker_id: int = setting(0, "Number of the pilot at its Harvester; 0: it has none.")
    tell_worker: bool = setting(
        True, "With both known, the server is told when the worker starts and ends."
    )


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """[service]: the pilot as a service of the machine."""

    stop_max_s: float = setting(
        3600.0, "Longest time that a drain asks systemd for when the service is stopped."
    )
    journal: str = setting(
        "auto", "Log to the journal too: auto (when stderr is the journal), yes or no."
    )


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """[metrics]: figures for Prometheus."""

    textfile: str = setting(
        "", "File ending in .prom for the node exporter's text file collector; {instance} is known."
    )
    port: int = setting(0, "Port on 127.0.0.1 that answers /metrics; 0 opens none.")
    every_s: float = setting(15.0, "Pause between two writings.")
