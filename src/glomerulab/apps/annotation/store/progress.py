"""How far the annotators of a study are."""

import statistics
from collections import defaultdict
from datetime import datetime

from sqlalchemy import Connection, func, select

from glomerulab.apps.annotation.records import Account, Annotation, Progress
from glomerulab.apps.annotation.store.accounts import account_of, require_owner
from glomerulab.apps.annotation.store.annotations import KIND, annotation_of
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.ledger import event_of
from glomerulab.apps.annotation.store.schema import account, assignment, event

__all__ = ["own_progress", "study_progress"]


def own_progress(store: Store, login: str) -> Progress:
    """Return how far one annotator is.

    Parameters
    ----------
    store : Store
    login : str

    Returns
    -------
    Progress
    """
    with store.reading() as connection:
        return _progress(connection, account_of(connection, login))


def study_progress(store: Store, *, by: str) -> list[Progress]:
    """Return how far everyone with a queue is.

    Parameters
    ----------
    store : Store
    by : str
        Login of an owner.

    Returns
    -------
    list of Progress
        In the order of the logins.
    """
    with store.reading() as connection:
        require_owner(connection, by)
        logins = connection.scalars(
            select(account.c.login).join(assignment).distinct().order_by(account.c.login)
        ).all()
        return [_progress(connection, account_of(connection, login)) for login in logins]


def _progress(connection: Connection, reader: Account) -> Progress:
    counts: dict[str, int] = dict(
        connection.execute(
            select(assignment.c.state, func.count())
            .where(assignment.c.account_id == reader.account_id)
            .group_by(assignment.c.state)
        ).all()
    )
    saves = _saves(connection, reader)
    by_item: dict[int, float] = defaultdict(float)
    newest: dict[int, Annotation] = {}
    for save in saves:
        by_item[save.assignment_id] += save.seconds
        newest[save.assignment_id] = save
    last: datetime | None = saves[-1].saved_at if saves else None
    return Progress(
        login=reader.login,
        name=reader.name,
        n_assigned=sum(counts.values()),
        n_done=counts.get("done", 0),
        n_skipped=counts.get("skipped", 0),
        n_unsure=sum(save.judgement.unsure for save in newest.values()),
        seconds_total=sum(by_item.values()),
        seconds_median=statistics.median(by_item.values()) if by_item else None,
        last_saved_at=last,
    )


def _saves(connection: Connection, reader: Account) -> list[Annotation]:
    rows = connection.execute(
        select(event)
        .where(event.c.kind == KIND, event.c.actor == reader.login)
        .order_by(event.c.sequence)
    ).mappings()
    return [annotation_of(event_of(row)) for row in rows]
