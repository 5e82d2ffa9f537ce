"""ProfileService: what goods are stored and shipped under, version by version."""

from __future__ import annotations

from typing import Any

from actors.journal import queries_business as queries
from actors.journal.tables import Profile
from actors.rules.errors import InvalidArgument, NotFound
from services import check, convert, records
from services.backend import Backend, Context
from services.carriers import command, given
from services.paging import Page
from waybill.v1 import profile_pb2, profile_pb2_grpc


class Profiles(profile_pb2_grpc.ProfileServiceServicer):
    """See profile.proto."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def CreateProfile(self, request: profile_pb2.CreateProfileRequest, context: Context) -> profile_pb2.CreateProfileResponse:
        """Version 1 of a new profile."""
        message = given(request, "profile")
        arguments = {
            "profile": convert.profile(message),
            "based_on": convert.basis(request),
            "actor": check.text(message.actor, "profile.actor"),
            "request_id": request.request_id,
        }
        answer = await command(self._backend, message.profile_id, "profile.create", arguments, context)
        return profile_pb2.CreateProfileResponse(profile=records.profile(Profile(**answer["profile"])))

    async def UpdateProfile(self, request: profile_pb2.UpdateProfileRequest, context: Context) -> profile_pb2.UpdateProfileResponse:
        """The next version."""
        message = given(request, "profile")
        arguments = {
            "profile": convert.profile(message),
            "in_force_us": check.time_us(request, "in_force_from_time"),
            "actor": check.text(message.actor, "profile.actor"),
            "request_id": request.request_id,
        }
        answer = await command(self._backend, message.profile_id, "profile.update", arguments, context)
        return profile_pb2.UpdateProfileResponse(profile=records.profile(Profile(**answer["profile"])))

    async def GetProfile(self, request: profile_pb2.GetProfileRequest, context: Context) -> profile_pb2.GetProfileResponse:
        """One version."""
        check.text(request.profile_id, "profile_id", required=True)
        if request.version < 0:
            raise InvalidArgument("must be 0 or more", field="version", value=request.version)
        if request.version:
            row = await self._backend.read(queries.profile_version, request.profile_id, request.version)
        else:
            row = await self._backend.read(queries.newest_profile, request.profile_id)
        if row is None:
            known = await self._backend.read(queries.newest_profile, request.profile_id) if request.version else None
            if known is None:
                raise NotFound("no such profile", field="profile_id", value=request.profile_id)
            raise NotFound(f"{request.profile_id} has no such version", field="version", value=request.version)
        return profile_pb2.GetProfileResponse(profile=records.profile(row))

    async def ListProfiles(self, request: profile_pb2.ListProfilesRequest, context: Context) -> profile_pb2.ListProfilesResponse:
        """The newest version of each profile, or all of one."""
        if request.profile_id:
            page = Page(request, (int,))
            check.text(request.profile_id, "profile_id")
            versions = await self._backend.read(queries.profile_versions, request.profile_id)
            if not versions:
                raise NotFound("no such profile", field="profile_id", value=request.profile_id)
            seen: Any = page.after[0] if page.after else 0
            shown, token = page.cut([row for row in versions if row.version > seen], lambda row: (row.version,))
        else:
            page = Page(request, (str,))
            after: Any = page.after[0] if page.after else ""
            rows = await self._backend.read(queries.profiles, after=after, limit=page.limit)
            shown, token = page.cut(rows, lambda row: (row.profile_id,))
        return profile_pb2.ListProfilesResponse(profiles=[records.profile(row) for row in shown], next_page_token=token)
