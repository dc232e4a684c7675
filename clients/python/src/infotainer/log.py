"""Reading a log: what is stored, without subscribing."""

from collections.abc import AsyncIterator, Iterable
from uuid import UUID

from . import commands
from ._core import Core
from .errors import AnswerNotUnderstood
from .protocol import MAX_ENTRIES, LogIndex, LogPage, Publication, SubscriptionReference, subscription_id


class Log:
    """A range of a log: an asynchronous iterable of its publications.

    Reads up to the end that the log has when the last page is read. A page is asked for when it is iterated to, so that a slow reader
    costs one page.
    """

    def __init__(
        self, core: Core, keeps_alive: object, reference: SubscriptionReference, after: int, page_size: int
    ) -> None:
        self._core = core
        self._keeps_alive = keeps_alive
        self._reference = reference
        self._after = after
        self._page_size = page_size

    async def __aiter__(self) -> AsyncIterator[Publication]:
        async for page in self.pages():
            for publication in page.publications:
                yield publication

    async def pages(self) -> AsyncIterator[LogPage]:
        """The publications, page by page."""
        after, more = self._after, True
        while more:
            command = commands.log_entries(self._reference, after, self._page_size)
            page = _page(await self._core.request(command))
            more = page.more
            if more and not page.publications:
                raise AnswerNotUnderstood("a page without progress")
            if page.publications:
                after = page.publications[-1].sequence
            yield page

    async def index(self) -> AsyncIterator[LogIndex]:
        """The ids of the publications, page by page, without their payloads."""
        after, more = self._after, True
        while more:
            index = await self._core.request(commands.log_index(self._reference, after, self._page_size))
            if not isinstance(index, LogIndex):
                raise AnswerNotUnderstood(repr(index))
            more = index.more
            if more and not index.entries:
                raise AnswerNotUnderstood("a page without progress")
            # What is kept has no holes, so the ids are those of the sequences that follow.
            after = max(after, index.first_sequence - 1) + len(index.entries)
            yield index


async def entries(core: Core, reference: SubscriptionReference, ids: Iterable[UUID]) -> LogPage:
    """The publications with these ids, in sequence order, and the ids that the log does not hold."""
    wanted = list(dict.fromkeys(ids))
    publications: list[Publication] = []
    missing: list[UUID] = []
    while wanted:
        page = _page(await core.request(commands.log_entries_of(reference, wanted[:MAX_ENTRIES])))
        settled = {*page.missing, *(one.publication_id for one in page.publications)}
        if page.more and not settled:
            raise AnswerNotUnderstood("a page without progress")
        # An answer without more has settled all that was asked.
        rest = wanted[:MAX_ENTRIES] if page.more else []
        wanted = [id for id in rest if id not in settled] + wanted[MAX_ENTRIES:]
        publications += page.publications
        missing += page.missing
    publications.sort(key=lambda publication: publication.sequence)
    return LogPage(subscription_id(reference), tuple(publications), tuple(missing), more=False)


def _page(answer: object) -> LogPage:
    if not isinstance(answer, LogPage):
        raise AnswerNotUnderstood(repr(answer))
    return answer
