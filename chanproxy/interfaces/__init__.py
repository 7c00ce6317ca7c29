"""
The nouns of chanproxy, as interfaces.

Imports nothing else of the package; everything else may import this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chanproxy import lazily

if TYPE_CHECKING:
    from chanproxy.interfaces.channels import Batch as Batch
    from chanproxy.interfaces.channels import ChannelBroken as ChannelBroken
    from chanproxy.interfaces.channels import ChannelClosed as ChannelClosed
    from chanproxy.interfaces.channels import IByteChannel as IByteChannel
    from chanproxy.interfaces.channels import IChannel as IChannel
    from chanproxy.interfaces.channels import IChannelUser as IChannelUser
    from chanproxy.interfaces.channels import MessageRefused as MessageRefused
    from chanproxy.interfaces.errors import FreezeInterrupted as FreezeInterrupted
    from chanproxy.interfaces.errors import FreezerError as FreezerError
    from chanproxy.interfaces.errors import FreezerNotReady as FreezerNotReady
    from chanproxy.interfaces.freezers import IExclusiveFreezer as IExclusiveFreezer
    from chanproxy.interfaces.freezers import IFreezer as IFreezer
    from chanproxy.interfaces.freezers import IFreezerFactory as IFreezerFactory
    from chanproxy.interfaces.freezers import ILocatedFreezer as ILocatedFreezer
    from chanproxy.interfaces.freezers import ISlicedFreezer as ISlicedFreezer
    from chanproxy.interfaces.freezers import IStartableFreezer as IStartableFreezer
    from chanproxy.interfaces.freezers import IThawedByDescriptor as IThawedByDescriptor
    from chanproxy.interfaces.plugins import PluginError as PluginError
    from chanproxy.interfaces.policies import IHandledPolicy as IHandledPolicy
    from chanproxy.interfaces.policies import IHandledPolicyFactory as IHandledPolicyFactory
    from chanproxy.interfaces.policies import IWakeWatcher as IWakeWatcher
    from chanproxy.interfaces.reactors import AnyReactor as AnyReactor
    from chanproxy.interfaces.reactors import ChanproxyReactor as ChanproxyReactor
    from chanproxy.interfaces.reactors import PollingReactor as PollingReactor
    from chanproxy.interfaces.reactors import expectReactor as expectReactor
else:
    # Whoever catches an error needs no reactor.
    __getattr__ = lazily(
        __name__,
        **dict.fromkeys(
            (
                "Batch",
                "ChannelBroken",
                "ChannelClosed",
                "IByteChannel",
                "IChannel",
                "IChannelUser",
                "MessageRefused",
            ),
            "channels",
        ),
        **dict.fromkeys(("FreezeInterrupted", "FreezerError", "FreezerNotReady"), "errors"),
        **dict.fromkeys(
            (
                "IExclusiveFreezer",
                "IFreezer",
                "IFreezerFactory",
                "ISlicedFreezer",
                "IStartableFreezer",
                "IThawedByDescriptor",
                "ILocatedFreezer",
                "ILocatedFreezer",
            ),
            "freezers",
        ),
        **dict.fromkeys(("PluginError",), "plugins"),
        **dict.fromkeys(("IHandledPolicy", "IHandledPolicyFactory", "IWakeWatcher"), "policies"),
        **dict.fromkeys(
            ("AnyReactor", "ChanproxyReactor", "PollingReactor", "expectReactor"), "reactors"
        ),
    )

__all__ = [
    "AnyReactor",
    "Batch",
    "ChannelBroken",
    "ChannelClosed",
    "ChanproxyReactor",
    "FreezeInterrupted",
    "FreezerError",
    "FreezerNotReady",
    "IByteChannel",
    "IChannel",
    "IChannelUser",
    "IExclusiveFreezer",
    "IFreezer",
    "IFreezerFactory",
    "IHandledPolicy",
    "IHandledPolicyFactory",
    "ILocatedFreezer",
    "ISlicedFreezer",
    "IThawedByDescriptor",
    "IWakeWatcher",
    "MessageRefused",
    "PluginError",
    "PollingReactor",
    "expectReactor",
]
