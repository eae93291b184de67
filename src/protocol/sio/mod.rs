//! Socket.IO 5 on the wire: packets, their attachments, and arguments.
