"""The pilot as a service of the machine: readiness, watchdog, status line, more time, reload."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from espilot.adapters.journal import JournalHandler, stderr_is_journal
from espilot.adapters.sdnotify import Notifier as Notifier
from espilot.adapters.sdnotify import open_notifier as open_notifier
from espilot.config import Settings
from espilot.core.reload import Change, plan_reload
from espilot.core.vigil import Vigil
from espilot.errors import EspilotError
from espilot.logs import Log, open_log
from espilot.view.look import Look
from espilot.view.status_line import status_line
from espilot.workers.context import Context


def journal_name(choice: str, instance: str, environ: Mapping[str, str]) -> str:
    """Our name in the journal, as the setting `service.journal` wants; "" to stay out of it."""
    wanted = choice == "yes" or (choice == "auto" and stderr_is_journal(environ))
    return f"espilot-{instance or '0'}" if wanted else ""


def open_service_log(context: Context) -> Log:
    """The supervisor's log: file and journal, or file and warnings to stderr."""
    journal = JournalHandler(context.journal) if context.journal else None
    return open_log(
        "supervisor", context.log_file, errors_to_stderr=not context.journal, also=journal
    )


class Service:
    """Speaks with the service manager; `also` are shown the run as well."""

    def __init__(
        self,
        notifier: Notifier,
        log: Log,
        *,
        settings: Settings,
        reread: Callable[[], Settings],
        also: tuple[Callable[[Look], None], ...] = (),
    ) -> None:
        self._notifier = notifier
        self._log = log
        self._reread = reread
        self._also = also
        self._vigil = Vigil(watchdog_s=notifier.watchdog_s, stop_max_s=settings.service.stop_max_s)
        self._status = ""
        self._stopping = False

    def look(self, look: Look) -> None:
        """Tell the manager what has changed."""
        now = time.monotonic()
        event_server = (look.facts.get("roles") or {}).get("event-server") or {}
        if self._vigil.becomes_ready(look.heard, server_tried=bool(event_server.get("contacts"))):
            self._log.info("start", "ready")
            self._notifier.tell("ready")
        draining = bool(((look.facts.get("run") or {}).get("drain") or {}).get("draining"))
        stopping = draining or look.closing
        if stopping and not self._stopping:
            self._stopping = True
            self._notifier.tell("stopping")
        extend_s = self._vigil.extends_s(now, stopping=stopping)
        if extend_s:
            self._notifier.tell(extend_timeout_usec=int(extend_s * 1e6))
        if self._vigil.feeds(look.heard, now, closing=look.closing):
            self._notifier.tell("watchdog")
        self._tell_status(look)
        for show in self._also:
            show(look)

    def reload(self, present: Settings) -> Change | None:
        """Read the settings again, and say what cannot be changed while we run."""
        self._notifier.tell_reloading()
        try:
            change = plan_reload(present, self._reread())
        except EspilotError as error:
            self._log.error("reload", "settings not read again, the former stay", error=error)
            return None
        for name in change.refused:
            self._log.warning("reload", "this setting needs a restart of the service", name=name)
        self._log.info("reload", "settings read again", changed=",".join(change.changed) or "none",
                       refused=",".join(change.refused) or "none")  # fmt: skip
        self._vigil.stop_max_s = change.settings.service.stop_max_s
        return change

    def reloaded(self) -> None:
        """Tell the manager that the reload is over."""
        self._notifier.tell("ready")

    def _tell_status(self, look: Look) -> None:
        text = status_line(look.counts, look.facts, time.time())
        if not self._vigil.ready:
            text = "starting"
        elif look.closing:
            text = f"ending · {text}"
        if text != self._status and self._notifier.tell(status=text):
            self._status = text
