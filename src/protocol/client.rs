//! The Socket.IO connection on one session: which namespaces it has joined, and what each packet means.
