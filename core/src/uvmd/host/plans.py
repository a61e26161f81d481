"""What a plan must be before it may be carried out: no plan escapes the policy."""

from __future__ import annotations

from uvmd.api.names import EXEMPT, MODIFY_RESOURCE
from uvmd.api.resources import Plan, Registered, Verb
from uvmd.errors import Refused
from uvmd.host.table import clean

_PATH = "path:"


def cleaned(name: str) -> str:
    """Return a name of something to lock; two spellings of one path become one name.

    Raises:
        TypeError: the handler gave no text, or an empty one.
    """
    if not isinstance(name, str) or not name:
        raise TypeError("a name is a text")
    return f"{_PATH}{clean(name.removeprefix(_PATH))}" if name.startswith(_PATH) else name


def verb_of(entry: Registered, request_type: str) -> Verb:
    """Return the verb that a request type is for this type.

    Raises:
        Refused: one that the type does not serve.
    """
    if not entry.type.verbs:
        return Verb.UPDATE  # core's types that ignore the request type
    for verb in entry.type.verbs:
        if verb.value == request_type:
            return verb
    raise Refused(f'the RequestType "{request_type:.64}" is not supported')


def check_plan(entry: Registered, verb: Verb, plan: object) -> None:
    """Refuse a plan that would escape the policy. In every VM, before its apply.

    Raises:
        Refused: it is no plan; it asks a point that the type does not declare; or it
            changes something and does not ask, without being exempt.
    """
    name = entry.type.name
    if not isinstance(plan, Plan):
        raise Refused(f"{name} {verb.value}: its handler returned {type(plan).__name__}, not a plan")
    if plan is Plan.nothing():
        return
    declared = entry.type.points_of(verb)
    asked = [question.point for question in plan.questions]
    for point in asked:
        # The tables take no such declaration of a third party; this is the lock behind the door.
        if point not in declared or (entry.third_party and point != MODIFY_RESOURCE):
            raise Refused(f"{name} {verb.value}: its plan asks {point:.64}, which the type does not declare")
    if entry.third_party and MODIFY_RESOURCE not in asked:
        raise Refused(f"{name} {verb.value}: its plan does not ask {MODIFY_RESOURCE}")
    if not asked and name not in EXEMPT:
        raise Refused(f"{name} {verb.value}: its plan asks none of {', '.join(declared) or 'no points'}")
