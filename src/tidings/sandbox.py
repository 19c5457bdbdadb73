"""What a sandbox starts with: a workspace and a project as in Asana's own examples, and a token."""

from typing import Final

from tidings.model import Micros, Owner, ResourceDraft, Scope
from tidings.service.tokens import TokenDesk
from tidings.store import Store
from tidings.wire.tokens import TokenRequest

WORKSPACE: Final = "1331"
TEAM: Final = "1332"
PROJECT: Final = "8675309"
USER: Final = "12345"
TASK: Final = "1001"
OWNER: Final = Owner(USER, "sandbox")

SEED: Final = (
    ResourceDraft(gid=WORKSPACE, resource_type="workspace", name="Sandbox"),
    ResourceDraft(gid=USER, resource_type="user", name="Greg Sanchez", parents=(WORKSPACE,)),
    ResourceDraft(gid=TEAM, resource_type="team", name="Engineering", parents=(WORKSPACE,)),
    ResourceDraft(gid=PROJECT, resource_type="project", name="Bugs", parents=(TEAM,)),
    ResourceDraft(gid="2001", resource_type="section", name="To do", parents=(PROJECT,)),
    ResourceDraft(gid="2002", resource_type="section", name="Done", parents=(PROJECT,)),
    ResourceDraft(
        gid=TASK,
        resource_type="task",
        resource_subtype="default_task",
        name="Buy catnip",
        parents=(PROJECT, "2001"),
    ),
    ResourceDraft(
        gid="1002",
        resource_type="task",
        resource_subtype="default_task",
        name="Fix the doorbell",
        parents=(PROJECT, "2001"),
    ),
    ResourceDraft(
        gid="1003",
        resource_type="task",
        resource_subtype="default_task",
        name="Find the right screwdriver",
        parents=("1002",),
    ),
)


async def seed(store: Store, tokens: TokenDesk, *, token: str, now: Micros) -> None:
    """Fill a fresh sandbox; one that was used before keeps what was done to it."""
    if await store.get_resource(WORKSPACE) is None:
        await store.put_resources(SEED, workspaces=None, now=now)
    request = TokenRequest(owner=OWNER, user_name="Greg Sanchez", scopes=frozenset(Scope))
    await tokens.keep(request, token)
