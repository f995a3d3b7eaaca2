"""Contacts: people, by the sender's own key."""

from typing import Final

from msgspec.structs import replace

from app.resources.declaration import ID, Field, Kind, Resource

CONTACTS: Final = Resource(
    type_id=1,
    name="contacts",
    singular="contact",
    objects={"hubspot": "contacts", "salesforce": "Contact"},
    example={
        "id": "c1",
        "email": "ada@example.org",
        "first_name": "Ada",
        "phone": "+44 20 7946 0000",
        "attributes": {"plan": "gold"},
    },
    id=replace(
        ID,
        meant_by="contactid customerid externalid uid key userid",
        headers="""
        id, uid, uuid, guid, key, unique id, external id, contact id, contact id 18, customer id, user id,
        member id, subscriber id, client id, lead id, person id, record id, record id contact, leid, euid,
        customer number, customer no, customer nr, customer key, customer code, contact number, client number,
        client code, member number, membership number, kundennummer, kundennr, kunden nr, kunden nummer,
        kunden id, kundenkennung, kontakt id, kontaktnummer, mitgliedsnummer, mitgliedsnr, mitglieds nr,
        debitorennummer, datensatz id, datensatz id kontakt, identifiant, identifiant client, numero client,
        numero de client, n client, no client, no cliente, code client, id client, id contact, id du contact,
        id de contact, id de fiche d informations, id d enregistrement, id de registro, numero de cliente,
        n de cliente, no de cliente, codigo de cliente, codigo cliente, id cliente, id de cliente,
        id de contacto, id contacto, id del contacto, identificador
        """,
    ),
    fields=(
        Field(
            name="email",
            kind=Kind.EMAIL,
            required=True,
            fills=False,
            at={"salesforce": "Email"},
            meant_by="email emailaddress mail emailaddr",
            headers="""
            email, mail, e mail, email address, e mail address, email addr, mail address, primary email, work email,
            business email, e mail 1 value, email 1 value, e mail 1 address, e mail adresse, email adresse,
            mailadresse, mail adresse, emailadresse, courriel, adresse de messagerie, adresse e mail, adresse email,
            adresse mail, adresse courriel, adresse electronique, adresse de courriel, correo electronico, correo,
            direccion de correo electronico, direccion de correo, direccion de email, direccion email,
            email principal, e mail principal
            """,
        ),
        Field(
            name="first_name",
            at={"hubspot": "firstname", "salesforce": "FirstName"},
            meant_by="firstname givenname forename fname",
            headers="""
            first name, firstname, given name, givenname, forename, fname, vorname, rufname, prenom, nombre,
            nombre de pila, primer nombre
            """,
        ),
        Field(
            name="last_name",
            at={"hubspot": "lastname", "salesforce": "LastName"},
            meant_by="lastname surname familyname lname",
            headers="""
            last name, lastname, surname, family name, familyname, lname, nachname, familienname, zuname, nom,
            nom de famille, apellido, apellidos, primer apellido
            """,
        ),
        Field(
            name="phone",
            kind=Kind.PHONE,
            at={"salesforce": "Phone"},
            meant_by="phonenumber telephone tel mobile phone1 mobilephone",
            headers="""
            phone, phone number, phone 1 value, telephone, telephone number, tel, mobile, mobile phone,
            mobile phone number, mobile number, cell, cell phone, primary phone, business phone, home phone, telefon,
            telefonnummer, telefonnr, tel nr, telefon geschaftlich, telefon privat, mobil, mobiltelefon, mobilnummer,
            handy, handynummer, rufnummer, telephone bureau, telephone mobile, telephone portable, tel mobile,
            numero de telephone, numero de telephone mobile, telephone domicile, telefono, telefono movil, movil,
            celular, numero de telefono, numero de telefono movil, telefono del trabajo, telefono particular
            """,
        ),
        Field(
            name="company",
            at={"salesforce": None},  # Contact has no field for it, it links to an Account
            meant_by="companyname organization organisation org employer",
            headers="""
            company, company name, organization, organisation, organization name, organisation name,
            organization 1 name, account name, accountname, employer, associated company, firma, firmenname,
            unternehmen, unternehmensname, name des unternehmens, societe, entreprise, nom de l entreprise,
            nom entreprise, nom de la societe, nom du compte, empresa, compania, nombre de la empresa,
            nombre de empresa, nombre de la compania, organizacion, nombre de la cuenta
            """,
        ),
    ),
)
